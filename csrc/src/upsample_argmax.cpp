// Inside one cell of the logit grid all classes are interpolated with the same four weights, so a
// class that wins at all four corners wins everywhere in the cell, and a class that loses to
// another one at all four corners wins nowhere. Cells of the first kind are filled; the others are
// computed with the classes that are left.
#include <algorithm>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "edgeseg/kernels.h"
#include "parallel.h"

namespace edgeseg {
namespace {

constexpr int kMostLanes = 16;
constexpr int kMostClasses = 256;  // room for 254, in whole vectors

// Output samples begin..end-1 lie between logit samples `index` and `index + 1`, or exactly on the
// last one, whose neighbour is itself.
struct Cell {
    int index, begin, end;
};

// One dimension of the output.
struct Axis {
    const Cell* cells;  // ascending, none empty
    int cell_count;
    const float* weights;  // of every output sample: the share of logit sample index + 1
};

// One row of the logit grid as float32, class after class. The last column is repeated once, so
// that every column has a right neighbour.
struct LogitRow {
    int n, y;
    float* values;          // classes × pitch
    std::uint8_t* winners;  // of every column, the lowest id on a tie
};

struct UpsampleJob {
    const Tensor& logits;
    Axis rows, columns;
    const Labels& labels;
    float* confidence;
    std::ptrdiff_t pitch;  // of LogitRow::values, in floats: whole vectors
};

// Values of some classes at the corners of a cell.
struct Corners {
    alignas(64) float top_left[kMostClasses];
    alignas(64) float top_right[kMostClasses];
    alignas(64) float bottom_left[kMostClasses];
    alignas(64) float bottom_right[kMostClasses];
};

struct UpsampleScratch {
    LogitRow top, bottom;
    std::uint8_t* filled_row;  // the band's row with all cells of one class filled
    Corners all{}, candidates{};
    int ids[kMostClasses];                  // of the candidates, ascending
    alignas(64) float left[kMostClasses];   // a row's values at the left edge of a cell
    alignas(64) float slope[kMostClasses];  // and their increase to the right edge
};

}  // namespace
}  // namespace edgeseg

#define EDGESEG_KERNELS "upsample_argmax.simd.h"
#include "foreach_level.h"

namespace edgeseg {
namespace {

struct AxisTables {
    std::vector<Cell> cells;
    std::vector<float> weights;

    AxisTables(int count, double start, double extent, bool align_corners, int size)
        : weights(static_cast<std::size_t>(count + kMostLanes)) {
        for (int i = 0; i < count; ++i) {
            double position = start;
            if (!align_corners) {
                position += (i + 0.5) * extent / count - 0.5;
            } else if (count > 1) {
                position += i * extent / (count - 1);
            }
            position = std::clamp(position, 0.0, size - 1.0);
            const int index = static_cast<int>(position);
            weights[static_cast<std::size_t>(i)] = static_cast<float>(position - index);
            if (cells.empty() || cells.back().index != index) {
                cells.push_back({index, i, i});
            }
            cells.back().end = i + 1;
        }
    }

    Axis view() const { return {cells.data(), static_cast<int>(cells.size()), weights.data()}; }
};

}  // namespace

void upsample_argmax(const Tensor& logits, const RectF& source, bool align_corners,
                     const Labels& labels, float* confidence, int threads) {
    const AxisTables rows(labels.height, source.y, source.height, align_corners, logits.h);
    const AxisTables columns(labels.width, source.x, source.width, align_corners, logits.w);
    const std::ptrdiff_t pitch = (std::ptrdiff_t{logits.w} + kMostLanes) / kMostLanes * kMostLanes;
    const UpsampleJob job{logits, rows.view(), columns.view(), labels, confidence, pitch};

    // What a network at stride 8 gives for a frame of its own size.
    const bool narrow_cells = labels.width <= 8 * std::int64_t{job.columns.cell_count};
    const auto fill_bands =
        narrow_cells ? EDGESEG_PICK_EIGHT(upsample_bands) : EDGESEG_PICK(upsample_bands);
    parallel_ranges(threads, labels.n * job.rows.cell_count, [&](int first, int last) {
        const auto row_values =
            static_cast<std::size_t>(pitch) * static_cast<std::size_t>(logits.c);
        std::vector<float> values(2 * row_values);
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(2 * pitch + labels.width));
        const auto scratch = std::make_unique<UpsampleScratch>();
        scratch->top = {-1, -1, values.data(), bytes.data()};
        scratch->bottom = {-1, -1, values.data() + row_values, bytes.data() + pitch};
        scratch->filled_row = bytes.data() + 2 * pitch;
        fill_bands(job, first, last, *scratch);
    });
}

}  // namespace edgeseg
