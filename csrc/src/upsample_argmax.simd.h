// The inner loops of upsample_argmax.cpp, compiled once per dispatch level by foreach_level.h.
namespace edgeseg::EDGESEG_LEVEL {

inline void store_bytes(std::uint8_t* to, Ints values, int count) {
    const Bytes bytes = __builtin_convertvector(values, Bytes);
    if (count >= kLanes) {
        __builtin_memcpy(to, &bytes, kLanes);
        return;
    }
    for (int i = 0; i < count; ++i) {
        to[i] = bytes[i];
    }
}

// Reads logit row y of image n and finds every column's winner.
inline void read_logit_row(const UpsampleJob& job, int n, int y, LogitRow& row) {
    if (row.n == n && row.y == y) {
        return;
    }
    row.n = n;
    row.y = y;
    const Tensor& logits = job.logits;
    const std::ptrdiff_t start = n * logits.stride_n + y * logits.stride_h;
    for (int k = 0; k < logits.c; ++k) {
        float* values = row.values + k * job.pitch;
        widen_row(logits, start + k * logits.stride_c, logits.stride_w, logits.w, values);
        values[logits.w] = values[logits.w - 1];
    }
    for (int x = 0; x <= logits.w; x += kLanes) {
        Floats best = load(row.values + x);
        Ints winner = {};
        for (int k = 1; k < logits.c; ++k) {
            const Floats value = load(row.values + k * job.pitch + x);
            const Ints better = value > best;
            best = better ? value : best;
            winner = better ? broadcast(std::int32_t{k}) : winner;
        }
        store_bytes(row.winners + x, winner, kLanes);
    }
}

inline void gather_corners(const UpsampleJob& job, const LogitRow& top, const LogitRow& bottom,
                           int x, Corners& corners) {
    for (int k = 0; k < job.logits.c; ++k) {
        const float* above = top.values + k * job.pitch + x;
        const float* below = bottom.values + k * job.pitch + x;
        corners.top_left[k] = above[0];
        corners.top_right[k] = above[1];
        corners.bottom_left[k] = below[0];
        corners.bottom_right[k] = below[1];
    }
}

// Collects the classes that may win somewhere in the cell: those that no winner of a corner beats
// at all four corners, or equals with a lower id. Returns how many.
inline int find_candidates(int classes, const std::uint8_t (&winners)[4],
                           UpsampleScratch& scratch) {
    const Corners& all = scratch.all;
    alignas(64) std::int32_t beaten[kMostClasses];
    Ints id;
    for (int i = 0; i < kLanes; ++i) {
        id[i] = i;
    }
    for (int first = 0; first < classes; first += kLanes, id += kLanes) {
        const Floats top_left = load(all.top_left + first);
        const Floats top_right = load(all.top_right + first);
        const Floats bottom_left = load(all.bottom_left + first);
        const Floats bottom_right = load(all.bottom_right + first);
        Ints dropped = {};
        for (int i = 0; i < 4; ++i) {
            const int winner = winners[i];
            const float best[4] = {all.top_left[winner], all.top_right[winner],
                                   all.bottom_left[winner], all.bottom_right[winner]};
            const Ints below = (top_left < best[0]) & (top_right < best[1]) &
                               (bottom_left < best[2]) & (bottom_right < best[3]);
            const Ints not_above = (top_left <= best[0]) & (top_right <= best[1]) &
                                   (bottom_left <= best[2]) & (bottom_right <= best[3]);
            dropped |= below | (not_above & (id > winner));
        }
        __builtin_memcpy(beaten + first, &dropped, sizeof dropped);
    }
    Corners& kept = scratch.candidates;
    int count = 0;
    for (int k = 0; k < classes; ++k) {
        kept.top_left[count] = all.top_left[k];
        kept.top_right[count] = all.top_right[k];
        kept.bottom_left[count] = all.bottom_left[k];
        kept.bottom_right[count] = all.bottom_right[k];
        scratch.ids[count] = k;
        count += beaten[k] == 0;
    }
    return count;
}

// Interpolates the corners of `count` classes to one output row: scratch.left and scratch.slope.
inline void interpolate_edges(const Corners& corners, int count, float weight,
                              UpsampleScratch& scratch) {
    for (int i = 0; i < count; i += kLanes) {
        const Floats top_left = load(corners.top_left + i);
        const Floats top_right = load(corners.top_right + i);
        const Floats left = top_left + (load(corners.bottom_left + i) - top_left) * weight;
        const Floats right = top_right + (load(corners.bottom_right + i) - top_right) * weight;
        store(scratch.left + i, left);
        store(scratch.slope + i, right - left);
    }
}

// The labels of one output row inside one cell.
inline void label_cell_row(const UpsampleScratch& scratch, int count, const float* weights,
                           int pixels, std::uint8_t* labels) {
    for (int x = 0; x < pixels; x += kLanes) {
        const Floats weight = load(weights + x);
        Floats best = scratch.left[0] + weight * scratch.slope[0];
        Ints winner = broadcast(std::int32_t{scratch.ids[0]});
        for (int i = 1; i < count; ++i) {
            const Floats value = scratch.left[i] + weight * scratch.slope[i];
            const Ints better = value > best;
            best = better ? value : best;
            winner = better ? broadcast(std::int32_t{scratch.ids[i]}) : winner;
        }
        store_bytes(labels + x, winner, pixels - x);
    }
}

// e^x for x <= 0, to about one ulp: 2^n * 2^r, |r| <= 1/2, by a polynomial. NaN is taken for -87,
// so that no exponent overflows.
inline Floats exp_of_negative(Floats x) {
    x = x > -87.0f ? x : broadcast(-87.0f);
    const Floats scaled = x * 1.44269504f;
    const Floats rounder = broadcast(0x1.8p23f);
    const Floats rounded = scaled + rounder;
    const Floats n = rounded - rounder;
    // x - n ln 2 in two parts, for the digits that a product would lose.
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats power = r * 1.9875691500e-4f + 1.3981999507e-3f;
    power = power * r + 8.3334519073e-3f;
    power = power * r + 4.1665795894e-2f;
    power = power * r + 1.6666665459e-1f;
    power = power * r + 5.0000001201e-1f;
    power = power * r * r + r + 1.0f;
    const Ints exponent = ((Ints)rounded - (Ints)rounder) << 23;
    return (Floats)((Ints)power + exponent);
}

// The largest softmax probability in one output row inside one cell; `scratch` as for all classes.
inline void confidence_cell_row(const UpsampleScratch& scratch, int classes, const float* weights,
                                int pixels, float* confidence) {
    for (int x = 0; x < pixels; x += kLanes) {
        const Floats weight = load(weights + x);
        Floats best = scratch.left[0] + weight * scratch.slope[0];
        for (int k = 1; k < classes; ++k) {
            const Floats value = scratch.left[k] + weight * scratch.slope[k];
            best = value > best ? value : best;
        }
        Floats sum = {};
        for (int k = 0; k < classes; ++k) {
            const Floats value = scratch.left[k] + weight * scratch.slope[k];
            sum += exp_of_negative(value - best);
        }
        float result[kLanes];
        store(result, 1.0f / sum);
        const int count = pixels - x < kLanes ? pixels - x : kLanes;
        __builtin_memcpy(confidence + x, result, static_cast<std::size_t>(count) * sizeof(float));
    }
}

// Writes one band, the output rows between two logit rows, of image n.
inline void upsample_band(const UpsampleJob& job, int n, const Cell& band,
                          UpsampleScratch& scratch) {
    const int classes = job.logits.c;
    const LogitRow& top = scratch.top;
    const LogitRow& bottom = scratch.bottom;
    std::uint8_t* labels = job.labels.data + n * job.labels.image_stride;
    const std::ptrdiff_t stride = job.labels.row_stride;

    for (int i = 0; i < job.columns.cell_count; ++i) {
        const Cell& cell = job.columns.cells[i];
        __builtin_memset(scratch.filled_row + cell.begin, top.winners[cell.index],
                         static_cast<std::size_t>(cell.end - cell.begin));
    }
    for (int y = band.begin; y < band.end; ++y) {
        __builtin_memcpy(labels + y * stride, scratch.filled_row,
                         static_cast<std::size_t>(job.labels.width));
    }

    for (int i = 0; i < job.columns.cell_count; ++i) {
        const Cell& cell = job.columns.cells[i];
        const std::uint8_t winners[4] = {top.winners[cell.index], top.winners[cell.index + 1],
                                         bottom.winners[cell.index],
                                         bottom.winners[cell.index + 1]};
        const bool agree =
            winners[0] == winners[1] && winners[0] == winners[2] && winners[0] == winners[3];
        if (agree && job.confidence == nullptr) {
            continue;
        }
        const float* weights = job.columns.weights + cell.begin;
        const int pixels = cell.end - cell.begin;
        gather_corners(job, top, bottom, cell.index, scratch.all);
        if (!agree) {
            const int count = find_candidates(classes, winners, scratch);
            for (int y = band.begin; y < band.end; ++y) {
                interpolate_edges(scratch.candidates, count, job.rows.weights[y], scratch);
                label_cell_row(scratch, count, weights, pixels, labels + y * stride + cell.begin);
            }
        }
        if (job.confidence != nullptr) {
            for (int y = band.begin; y < band.end; ++y) {
                interpolate_edges(scratch.all, classes, job.rows.weights[y], scratch);
                const std::ptrdiff_t row = std::ptrdiff_t{n} * job.labels.height + y;
                confidence_cell_row(scratch, classes, weights, pixels,
                                    job.confidence + row * job.labels.width + cell.begin);
            }
        }
    }
}

// Bands first..last-1, counted through all images.
inline void upsample_bands(const UpsampleJob& job, int first, int last, UpsampleScratch& scratch) {
    for (int i = first; i < last; ++i) {
        const int n = i / job.rows.cell_count;
        const Cell& band = job.rows.cells[i % job.rows.cell_count];
        if (scratch.bottom.n == n && scratch.bottom.y == band.index) {
            const LogitRow top = scratch.top;
            scratch.top = scratch.bottom;
            scratch.bottom = top;
        }
        const int below = band.index + 1 < job.logits.h ? band.index + 1 : band.index;
        read_logit_row(job, n, band.index, scratch.top);
        read_logit_row(job, n, below, scratch.bottom);
        upsample_band(job, n, band, scratch);
    }
}

}  // namespace edgeseg::EDGESEG_LEVEL
