// Pictures in binary PPM (RGB) and PGM (grey), which need no library and which most tools read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <istream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace netpbm {

struct Picture {
    int height, width, channels;  // 3: R,G,B; 1: grey
    std::vector<std::uint8_t> pixels;
};

// The next number of a header; comments go from # to the end of a line.
inline int read_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#') {
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    int number = 0;
    file >> number;
    return number;
}

// A PPM file (P6) with 8 bits a channel.
inline Picture read(const std::string& path) {
    constexpr int most = 1 << 14;  // pixels of a side
    std::ifstream file(path, std::ios::binary);
    std::string magic(2, '\0');
    file.read(magic.data(), 2);
    Picture picture{0, 0, 3, {}};
    picture.width = read_number(file);
    picture.height = read_number(file);
    const int white = read_number(file);
    file.get();
    if (!file || magic != "P6" || white != 255 || picture.width < 1 || picture.width > most ||
        picture.height < 1 || picture.height > most) {
        throw std::runtime_error(path + " is no binary PPM picture of 8 bits a channel");
    }
    picture.pixels.resize(std::size_t{3} * static_cast<std::size_t>(picture.height) *
                          static_cast<std::size_t>(picture.width));
    const auto size = static_cast<std::streamsize>(picture.pixels.size());
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), size)) {
        throw std::runtime_error(path + " is truncated");
    }
    return picture;
}

inline void write(const std::string& path, const Picture& picture) {
    std::ofstream file(path, std::ios::binary);
    file << (picture.channels == 3 ? "P6\n" : "P5\n") << picture.width << " " << picture.height
         << "\n255\n";
    file.write(reinterpret_cast<const char*>(picture.pixels.data()),
               static_cast<std::streamsize>(picture.pixels.size()));
    if (!file.flush()) {
        throw std::runtime_error("cannot write " + path);
    }
}

}  // namespace netpbm
