// Logits -> labels at any size, without interpolating what cannot win.
//
// A block labels a tile of output pixels. The logits under the tile go to shared memory once; there
// each grid vertex finds its best class and each cell of the grid compares its four: where they
// agree, the cell has one label. Elsewhere the cell keeps the classes that none of the four corner
// winners dominates, usually two or three, and only those are interpolated. Where float32 cannot
// order the best two, the pixel is decided in double precision.
#include "launch.cuh"
#include "pixel.cuh"

namespace edgeseg::cuda {
namespace {

constexpr unsigned kFullWarp = ~0u;
constexpr int kWarp = 32;
constexpr int kQuad = 4;  // neighbouring pixels of a thread: one word of labels
constexpr int kTileWidth = 64;
constexpr int kTileHeight = 16;
constexpr int kThreads = kTileWidth / kQuad * kTileHeight;
constexpr int kMixed = 255;  // "the corners disagree" where a cell's label stands; K <= 254
constexpr std::size_t kMaxSharedBytes = 40 * 1024;  // beside the static arrays, any GPU has it

struct Grid {
    Axis rows, columns;
};

// The best class of values[0..classes-1] and, in `magnitude`, the largest |value|; in every lane.
__device__ __forceinline__ int warp_argmax(const float* values, int classes, float& magnitude) {
    float best = -INFINITY;
    int label = 0;
    magnitude = 0.0f;
    for (int id = threadIdx.x % kWarp; id < classes; id += kWarp) {
        const float value = values[id];
        magnitude = fmaxf(magnitude, fabsf(value));
        if (value > best) {
            best = value;
            label = id;
        }
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        const float other_best = __shfl_xor_sync(kFullWarp, best, distance);
        const int other_label = __shfl_xor_sync(kFullWarp, label, distance);
        magnitude = fmaxf(magnitude, __shfl_xor_sync(kFullWarp, magnitude, distance));
        if (other_best > best || (other_best == best && other_label < label)) {
            best = other_best;
            label = other_label;
        }
    }
    return label;
}

// Shared memory of a tile: room for `rows` × `columns` vertices of the logit grid. A cell goes by
// the vertex at its top left, so the last row and column of vertices name no cell.
struct TileShape {
    int rows, columns, classes;

    __host__ __device__ int vertices() const { return rows * columns; }
    // An odd number of words between vertices keeps neighbouring cells in different banks.
    __host__ __device__ int vertex_stride() const { return classes | 1; }
    __host__ __device__ int mask_words() const { return (classes + kWarp - 1) / kWarp; }
    __host__ __device__ std::size_t bytes() const {
        const std::size_t words = vertex_stride() + 2 + mask_words();
        return (4 * words + 2) * rows * columns;
    }
};

struct Tile {
    float* logits;             // [vertex][class]
    float* vertex_magnitude;   // largest |logit|
    float* cell_tolerance;     // see ambiguity()
    std::uint32_t* cell_mask;  // [cell][word], bit i of word j: class 32*j + i may win
    std::uint8_t* vertex_label;
    std::uint8_t* cell_label;  // or kMixed

    __device__ Tile(float* memory, const TileShape& shape) {
        logits = memory;
        vertex_magnitude = logits + shape.vertices() * shape.vertex_stride();
        cell_tolerance = vertex_magnitude + shape.vertices();
        cell_mask = reinterpret_cast<std::uint32_t*>(cell_tolerance + shape.vertices());
        vertex_label =
            reinterpret_cast<std::uint8_t*>(cell_mask + shape.vertices() * shape.mask_words());
        cell_label = vertex_label + shape.vertices();
    }
};

// Four blocks fill a multiprocessor's registers at 64 a thread, which the kernel needs.
template <typename T>
__global__ void __launch_bounds__(kThreads, 4)
    upsample_argmax_tiled_kernel(Tensor logits, Grid grid, Labels labels, float* confidence,
                                 TileShape shape) {
    extern __shared__ float dynamic_shared[];
    __shared__ int row_index[kTileHeight], column_index[kTileWidth];
    __shared__ float row_fraction[kTileHeight], column_fraction[kTileWidth];
    const Tile tile(dynamic_shared, shape);
    const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
    const int first_y = blockIdx.y * kTileHeight, first_x = blockIdx.x * kTileWidth;
    const int classes = logits.c;

    // Positions of the tile's rows and columns. Beyond the image the last one is repeated.
    if (thread < kTileHeight) {
        const Position position = locate(grid.rows, min(first_y + thread, labels.height - 1));
        row_index[thread] = position.index;
        row_fraction[thread] = static_cast<float>(position.fraction);
    } else if (thread >= kTileWidth && thread < 2 * kTileWidth) {
        const int i = thread - kTileWidth;
        const Position position = locate(grid.columns, min(first_x + i, labels.width - 1));
        column_index[i] = position.index;
        column_fraction[i] = static_cast<float>(position.fraction);
    }
    __syncthreads();

    // Logits of the tile's vertices, read in the order of memory.
    const int top = row_index[0], left = column_index[0];
    const int columns = column_index[kTileWidth - 1] - left + 2;
    const int vertices = (row_index[kTileHeight - 1] - top + 2) * columns;
    const T* image = static_cast<const T*>(logits.data) + blockIdx.z * logits.stride_n;
    for (int i = thread; i < vertices * classes; i += kThreads) {
        const bool classes_last = logits.stride_c == 1;
        const int vertex = classes_last ? i / classes : i % vertices;
        const int id = classes_last ? i % classes : i / vertices;
        const int y = min(top + vertex / columns, logits.h - 1);
        const int x = min(left + vertex % columns, logits.w - 1);
        tile.logits[vertex * shape.vertex_stride() + id] = to_float(
            __ldg(image + id * logits.stride_c + y * logits.stride_h + x * logits.stride_w));
    }
    __syncthreads();

    for (int vertex = warp; vertex < vertices; vertex += kThreads / kWarp) {
        float magnitude;
        const int label =
            warp_argmax(tile.logits + vertex * shape.vertex_stride(), classes, magnitude);
        if (lane == 0) {
            tile.vertex_label[vertex] = static_cast<std::uint8_t>(label);
            tile.vertex_magnitude[vertex] = magnitude;
        }
    }
    __syncthreads();

    const auto corners_of = [&](int cell, int id) {
        const float* upper = tile.logits + cell * shape.vertex_stride() + id;
        const float* lower = upper + columns * shape.vertex_stride();
        return Corners{upper[0], upper[shape.vertex_stride()], lower[0],
                       lower[shape.vertex_stride()]};
    };
    const int cell_end = vertices - columns - 1;
    for (int cell = warp; cell < cell_end; cell += kThreads / kWarp) {
        if (cell % columns == columns - 1) continue;
        const int corners[] = {cell, cell + 1, cell + columns, cell + columns + 1};
        int winners[4];
        float magnitude = 0.0f;
        for (int i = 0; i < 4; ++i) {
            winners[i] = tile.vertex_label[corners[i]];
            magnitude = fmaxf(magnitude, tile.vertex_magnitude[corners[i]]);
        }
        const bool agree =
            winners[0] == winners[1] && winners[0] == winners[2] && winners[0] == winners[3];
        if (lane == 0) {
            tile.cell_label[cell] = static_cast<std::uint8_t>(agree ? winners[0] : kMixed);
            tile.cell_tolerance[cell] = ambiguity(magnitude);
        }
        if (agree) continue;
        for (int word = 0; word < shape.mask_words(); ++word) {
            const int id = word * kWarp + lane;
            bool may_win = id < classes;
            if (may_win) {
                const Corners own = corners_of(cell, id);
                for (const int winner : winners) {
                    may_win = may_win && (winner == id ||
                                          !dominates(corners_of(cell, winner), winner, own, id));
                }
            }
            const std::uint32_t mask = __ballot_sync(kFullWarp, may_win);
            if (lane == 0) tile.cell_mask[cell * shape.mask_words() + word] = mask;
        }
    }
    __syncthreads();

    // A warp labels 32×4 pixels, which touch few cells: its threads mostly do the same.
    constexpr int kQuadsAcross = 8;
    const int quad_x = kQuad * (warp % 2 * kQuadsAcross + lane % kQuadsAcross);
    const int row = warp / 2 * (kWarp / kQuadsAcross) + lane / kQuadsAcross;
    const int y = first_y + row, x = first_x + quad_x;
    if (y >= labels.height || x >= labels.width) return;

    const float down = row_fraction[row];
    const int cell_row = (row_index[row] - top) * columns - left;
    float right[kQuad];
    for (int i = 0; i < kQuad; ++i) right[i] = column_fraction[quad_x + i];

    std::uint32_t packed_labels = 0;  // pixel i in byte i
    std::uint32_t ambiguous = 0;      // bit i: float32 cannot tell the label of pixel i
    for (int begin = 0; begin < kQuad;) {
        // Neighbours in one cell share the interpolation downwards.
        const int index = column_index[quad_x + begin];
        int end = begin + 1;
        while (end < kQuad && column_index[quad_x + end] == index) ++end;
        const int cell = cell_row + index;
        const auto for_each_in_run = [&](const auto& visit) {
#pragma unroll
            for (int i = 0; i < kQuad; ++i) {
                if (i >= begin && i < end) visit(i);
            }
        };

        const std::uint32_t cell_label = tile.cell_label[cell];
        if (cell_label != kMixed) {
            for_each_in_run([&](int i) { packed_labels |= cell_label << 8 * i; });
        } else {
            BestTwo best[kQuad];
            for (int word = 0; word < shape.mask_words(); ++word) {
                std::uint32_t mask = tile.cell_mask[cell * shape.mask_words() + word];
                for (; mask != 0; mask &= mask - 1) {
                    const int id = word * kWarp + __ffs(static_cast<int>(mask)) - 1;
                    const Corners corners = corners_of(cell, id);
                    const float from = lerp(corners.top_left, corners.bottom_left, down);
                    const float to = lerp(corners.top_right, corners.bottom_right, down);
                    for_each_in_run([&](int i) { best[i].visit(id, lerp(from, to, right[i])); });
                }
            }
            const float tolerance = tile.cell_tolerance[cell];
            for_each_in_run([&](int i) {
                packed_labels |= static_cast<std::uint32_t>(best[i].label) << 8 * i;
                ambiguous |= static_cast<std::uint32_t>(best[i].ambiguous(tolerance)) << i;
            });
        }
        begin = end;
    }

#pragma unroll 1
    for (; ambiguous != 0; ambiguous &= ambiguous - 1) {
        const int i = __ffs(static_cast<int>(ambiguous)) - 1;
        const int cell = cell_row + column_index[quad_x + i];
        const std::uint32_t label = exact_label(
            [&](int id) { return corners_of(cell, id); }, classes, locate(grid.rows, y).fraction,
            locate(grid.columns, min(x + i, labels.width - 1)).fraction);
        packed_labels = (packed_labels & ~(0xFFu << 8 * i)) | label << 8 * i;
    }

    std::uint8_t* to = labels.data + blockIdx.z * labels.image_stride + y * labels.row_stride + x;
    if (x + kQuad <= labels.width && holds_quad(to)) {
        *reinterpret_cast<std::uint32_t*>(to) = packed_labels;
    } else {
        for (int i = 0; i < kQuad && x + i < labels.width; ++i) {
            to[i] = static_cast<std::uint8_t>(packed_labels >> 8 * i);
        }
    }
    if (confidence == nullptr) return;

    float probability[kQuad];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
        const int cell = cell_row + column_index[quad_x + i];
        const auto logit = [&](int id) { return bilinear(corners_of(cell, id), down, right[i]); };
        probability[i] = softmax_of(packed_labels >> 8 * i & 0xFF, classes, logit);
    }
    float* to_confidence =
        confidence + (std::int64_t{blockIdx.z} * labels.height + y) * labels.width + x;
    if (x + kQuad <= labels.width && holds_quad(to_confidence)) {
        *reinterpret_cast<float4*>(to_confidence) = {probability[0], probability[1], probability[2],
                                                     probability[3]};
    } else {
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
            if (x + i < labels.width) to_confidence[i] = probability[i];
        }
    }
}

// One thread per pixel, all classes from global memory: where labels are so few per logit (little
// or no upsampling) that a tile's logits neither fit nor repay shared memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    upsample_argmax_direct_kernel(Tensor logits, Grid grid, Labels labels, float* confidence) {
    const int x = blockIdx.x * kWarp + threadIdx.x % kWarp;
    const int y = blockIdx.y * (kThreads / kWarp) + threadIdx.x / kWarp;
    if (y >= labels.height || x >= labels.width) return;

    const Position row = locate(grid.rows, y), column = locate(grid.columns, x);
    const float down = static_cast<float>(row.fraction);
    const float right = static_cast<float>(column.fraction);
    const T* corner = static_cast<const T*>(logits.data) + blockIdx.z * logits.stride_n +
                      row.index * logits.stride_h + column.index * logits.stride_w;
    const std::ptrdiff_t below = logits.h > 1 ? logits.stride_h : 0;
    const std::ptrdiff_t beside = logits.w > 1 ? logits.stride_w : 0;
    const auto corners_of = [&](int id) {
        const T* at = corner + id * logits.stride_c;
        return Corners{to_float(__ldg(at)), to_float(__ldg(at + beside)),
                       to_float(__ldg(at + below)), to_float(__ldg(at + below + beside))};
    };

    BestTwo best;
    float magnitude = 0.0f;
    for (int id = 0; id < logits.c; ++id) {
        const Corners corners = corners_of(id);
        magnitude =
            fmaxf(fmaxf(magnitude, fmaxf(fabsf(corners.top_left), fabsf(corners.top_right))),
                  fmaxf(fabsf(corners.bottom_left), fabsf(corners.bottom_right)));
        best.visit(id, bilinear(corners, down, right));
    }
    int label = best.label;
    if (best.ambiguous(ambiguity(magnitude))) {
        label = exact_label(corners_of, logits.c, row.fraction, column.fraction);
    }
    labels.data[blockIdx.z * labels.image_stride + y * labels.row_stride + x] =
        static_cast<std::uint8_t>(label);

    if (confidence == nullptr) return;
    confidence[(std::int64_t{blockIdx.z} * labels.height + y) * labels.width + x] =
        softmax_of(label, logits.c, [&](int id) { return bilinear(corners_of(id), down, right); });
}

Axis label_axis(double begin, double extent, int labels, int logits, bool align_corners) {
    if (align_corners) return {begin, labels > 1 ? extent / (labels - 1) : 0.0, logits};
    const double scale = extent / labels;
    return {begin + 0.5 * scale - 0.5, scale, logits};
}

// Most vertices that `pixels` neighbours of an axis can touch: positions that lie d apart have at
// most ceil(d) + 1 cells. The margin covers the rounding of positions.
int max_vertices(const Axis& axis, int pixels) {
    const double cells = std::ceil((pixels - 1) * axis.scale + 1e-6) + 1;
    const int most = axis.size > 2 ? axis.size : 2;
    return cells + 1 < most ? static_cast<int>(cells) + 1 : most;
}

}  // namespace

void upsample_argmax(const Tensor& logits, const RectF& source, bool align_corners,
                     const Labels& labels, float* confidence, Stream stream) {
    const Grid grid{label_axis(source.y, source.height, labels.height, logits.h, align_corners),
                    label_axis(source.x, source.width, labels.width, logits.w, align_corners)};
    const TileShape shape{max_vertices(grid.rows, kTileHeight),
                          max_vertices(grid.columns, kTileWidth), logits.c};
    const unsigned images = static_cast<unsigned>(labels.n);

    with_float_type(logits.dtype, [&](auto value) {
        using T = decltype(value);
        if (shape.bytes() <= kMaxSharedBytes) {
            const dim3 blocks(ceil_div(labels.width, kTileWidth),
                              ceil_div(labels.height, kTileHeight), images);
            launch("upsample_argmax", upsample_argmax_tiled_kernel<T>, blocks, kThreads,
                   shape.bytes(), stream, logits, grid, labels, confidence, shape);
        } else {
            const dim3 blocks(ceil_div(labels.width, kWarp),
                              ceil_div(labels.height, kThreads / kWarp), images);
            launch("upsample_argmax", upsample_argmax_direct_kernel<T>, blocks, kThreads, 0, stream,
                   logits, grid, labels, confidence);
        }
    });
}

}  // namespace edgeseg::cuda
