// The inner loops of overlay.cpp, compiled once per dispatch level by foreach_level.h.
namespace edgeseg::EDGESEG_LEVEL {

inline void overlay_rows(const OverlayJob& job, int first, int last, std::uint16_t* added) {
    const std::uint32_t weight = static_cast<std::uint32_t>(256 - job.alpha);
    const int samples = 3 * job.width;
    for (int y = first; y < last; ++y) {
        const std::uint8_t* labels = job.labels + y * job.label_stride;
        const std::uint8_t* frame = job.frame + y * job.frame_stride;
        std::uint8_t* out = job.out + y * job.out_stride;
        for (int x = 0; x < job.width; ++x) {
            // Copies a fourth, unused number; the next pixel overwrites it.
            __builtin_memcpy(added + 3 * x, job.colours[labels[x]], 4 * sizeof(std::uint16_t));
        }
        for (int i = 0; i < samples; ++i) {
            const std::uint32_t blended = (frame[i] * weight + added[i]) >> 8;
            out[i] = static_cast<std::uint8_t>(added[i] == kKeepFrame ? frame[i] : blended);
        }
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
