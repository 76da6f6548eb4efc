// What has to be computed around the network of an edge-deeplab artefact: frame -> tensor, output -> mask.
// The words for it are in contract.md. C++17, no dependencies. Apache-2.0.
//
//   edge_deeplab::Contract portrait;                                  // its defaults are those of `portrait`
//   std::vector<float> image = edge_deeplab::tensor({bgr, height, width, stride}, portrait);
//   ... run the network on image ...
//   std::vector<uint8_t> mask = edge_deeplab::mask(logits, {1, 72, 72}, portrait, height, width);
//
// Compile with -ffp-contract=off where bytes are to agree with the test vectors.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace edge_deeplab {

using Bytes = std::vector<std::uint8_t>;

enum class Head { logits, probability, classmap };

// The fields of the JSON record that the arithmetic depends on.
struct Contract {
    int height = 288, width = 288;
    bool letterbox = false;  // else stretch
    bool bgr = false;        // channel order of the tensor
    bool nhwc = false;       // layout of input and output
    std::array<double, 3> mean{128, 128, 128}, std{128, 128, 128};
    Head head = Head::logits;
    double threshold = 0.5;
};

// Three bytes a pixel, BGR; `stride` is the number of bytes from one row to the next.
struct Frame {
    const std::uint8_t *data;
    int height, width;
    std::ptrdiff_t stride;
};

// Planes, rows and columns of one picture's output.
struct Shape {
    int planes, height, width;
};

struct Placement {
    int top, left, height, width;
};

inline double half_even(double value) { return std::nearbyint(value); }  // in the default rounding mode

inline Placement placement(const Contract &c, int height, int width) {
    if (!c.letterbox) return {0, 0, c.height, c.width};
    const double factor = std::min(double(c.height) / height, double(c.width) / width);
    const int h = std::min(c.height, std::max(1, int(half_even(height * factor))));
    const int w = std::min(c.width, std::max(1, int(half_even(width * factor))));
    return {(c.height - h) / 2, (c.width - w) / 2, h, w};
}

namespace detail {

struct Tap {
    int first;
    float t;
};

// Source position of every pixel along one side: the pixel before it and how far behind that it lies.
inline std::vector<Tap> taps(int to, int from) {
    std::vector<Tap> answer;
    for (int i = 0; i < to; ++i) {
        const float p = float((i + 0.5) * (double(from) / to) - 0.5);
        const int first = int(std::floor(p));
        answer.push_back({first, p - float(first)});
    }
    return answer;
}

inline Tap inside(Tap tap, int size) {
    if (tap.first < 0) return {0, 0.0f};
    if (tap.first >= size - 1) return {size - 1, 0.0f};
    return tap;
}

inline std::int32_t weight(float t) { return std::int32_t(half_even(2048.0f * t)); }

inline Bytes bilinear(const Frame &f, int height, int width) {
    std::vector<std::int32_t> rows(std::size_t(f.height) * width * 3);
    const auto across = taps(width, f.width), down = taps(height, f.height);
    for (int x = 0; x < width; ++x) {
        const Tap tap = inside(across[x], f.width);
        const std::int32_t a0 = weight(1 - tap.t), a1 = weight(tap.t);
        const int next = std::min(tap.first + 1, f.width - 1);
        for (int y = 0; y < f.height; ++y) {
            const std::uint8_t *row = f.data + y * f.stride;
            for (int c = 0; c < 3; ++c)
                rows[(std::size_t(y) * width + x) * 3 + c] = a0 * row[tap.first * 3 + c] + a1 * row[next * 3 + c];
        }
    }
    Bytes answer(std::size_t(height) * width * 3);
    for (int y = 0; y < height; ++y) {
        const Tap tap = down[y];
        const std::int32_t b0 = weight(1 - tap.t), b1 = weight(tap.t);
        const std::int32_t *upper = &rows[std::size_t(std::clamp(tap.first, 0, f.height - 1)) * width * 3];
        const std::int32_t *lower = &rows[std::size_t(std::clamp(tap.first + 1, 0, f.height - 1)) * width * 3];
        for (int i = 0; i < width * 3; ++i)
            answer[std::size_t(y) * width * 3 + i] =
                std::uint8_t((((b0 * (upper[i] >> 4)) >> 16) + ((b1 * (lower[i] >> 4)) >> 16) + 2) >> 2);
    }
    return answer;
}

using Shares = std::vector<std::vector<std::pair<int, float>>>;

inline Shares shares(int to, int from) {
    Shares answer(to);
    const double s = double(from) / to;
    for (int i = 0; i < to; ++i)
        for (int k = int(i * s); k < std::min(from, int(std::ceil((i + 1) * s))); ++k) {
            const double covered = std::min((i + 1) * s, k + 1.0) - std::max(i * s, double(k));
            if (covered > 1e-3) answer[i].push_back({k, float(covered / s)});
        }
    return answer;
}

inline Bytes halved(const Frame &f) {
    const int height = f.height / 2, width = f.width / 2;
    Bytes answer(std::size_t(height) * width * 3);
    if (f.height % 2 == 0 && f.width % 2 == 0) {
        for (int y = 0; y < height; ++y) {
            const std::uint8_t *upper = f.data + 2 * y * f.stride, *lower = upper + f.stride;
            for (int i = 0; i < width * 3; ++i) {
                const int at = i / 3 * 6 + i % 3;
                answer[std::size_t(y) * width * 3 + i] =
                    std::uint8_t((upper[at] + upper[at + 3] + lower[at] + lower[at + 3] + 2) >> 2);
            }
        }
        return answer;
    }
    const Shares across = shares(width, f.width), down = shares(height, f.height);
    std::vector<float> rows(std::size_t(f.height) * width * 3), sums(std::size_t(width) * 3);
    for (int y = 0; y < f.height; ++y)
        for (int x = 0; x < width; ++x)
            for (const auto &[k, share] : across[x])
                for (int c = 0; c < 3; ++c)
                    rows[(std::size_t(y) * width + x) * 3 + c] += share * f.data[y * f.stride + k * 3 + c];
    for (int y = 0; y < height; ++y) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (const auto &[k, share] : down[y])
            for (int i = 0; i < width * 3; ++i) sums[i] += share * rows[std::size_t(k) * width * 3 + i];
        for (int i = 0; i < width * 3; ++i)
            answer[std::size_t(y) * width * 3 + i] = std::uint8_t(half_even(sums[i]));
    }
    return answer;
}

}  // namespace detail

inline Bytes resize(Frame f, int height, int width) {
    Bytes kept;
    while (f.height >= 2 * height && f.width >= 2 * width) {
        Bytes half = detail::halved(f);
        kept.swap(half);
        f = {kept.data(), f.height / 2, f.width / 2, f.width / 2 * 3};
    }
    if (f.height != height || f.width != width) return detail::bilinear(f, height, width);
    Bytes answer;
    for (int y = 0; y < height; ++y)
        answer.insert(answer.end(), f.data + y * f.stride, f.data + y * f.stride + width * 3);
    return answer;
}

// A frame -> bytes (height, width, 3) at the network's input size, in the tensor's channel order. This is the
// tensor of `uint8` inputs in NHWC; `int8` is every byte ^ 0x80.
inline Bytes to_input_size(const Frame &f, const Contract &c) {
    const Placement place = placement(c, f.height, f.width);
    const Bytes inner = resize(f, place.height, place.width);
    Bytes answer(std::size_t(c.height) * c.width * 3);
    for (std::size_t i = 0; i < answer.size(); ++i)
        answer[i] = std::uint8_t(std::clamp(half_even(c.mean[i % 3]), 0.0, 255.0));
    for (int y = 0; y < place.height; ++y)
        for (int x = 0; x < place.width; ++x)
            for (int k = 0; k < 3; ++k)
                answer[(std::size_t(place.top + y) * c.width + place.left + x) * 3 + k] =
                    inner[(std::size_t(y) * place.width + x) * 3 + (c.bgr ? k : 2 - k)];
    return answer;
}

// A frame -> the float32 input tensor of one picture.
inline std::vector<float> tensor(const Frame &f, const Contract &c) {
    const Bytes image = to_input_size(f, c);
    const std::size_t pixels = image.size() / 3;
    std::vector<float> answer(image.size());
    for (int k = 0; k < 3; ++k) {
        const float factor = float(1 / c.std[k]), offset = float(c.mean[k] / c.std[k]);
        for (std::size_t i = 0; i < pixels; ++i)
            answer[c.nhwc ? i * 3 + k : k * pixels + i] = float(image[i * 3 + k]) * factor - offset;
    }
    return answer;
}

namespace detail {

// Where the pixels of a frame lie along one side of the output, half a pixel not yet taken off.
inline std::vector<double> lines(int to, int size, int begin, int length, int whole) {
    std::vector<double> answer;
    for (int i = 0; i < to; ++i) answer.push_back((begin + (i + 0.5) * length / to) * size / whole);
    return answer;
}

inline Tap tap(double p, int size) {
    const int first = int(std::floor(p));
    return inside({first, float(p - first)}, size);
}

}  // namespace detail

// The network's output for one picture -> scores of every plane at the frame's size, (planes, height, width).
inline std::vector<float> scores(const float *output, Shape s, const Contract &c, int height, int width) {
    const Placement place = placement(c, height, width);
    const auto ys = detail::lines(height, s.height, place.top, place.height, c.height);
    const auto xs = detail::lines(width, s.width, place.left, place.width, c.width);
    std::vector<float> answer(std::size_t(s.planes) * height * width), rows(std::size_t(s.height) * width);
    for (int k = 0; k < s.planes; ++k) {
        const auto value = [&](int y, int x) {
            const std::size_t at = std::size_t(y) * s.width + x;
            return output[c.nhwc ? at * s.planes + k : std::size_t(k) * s.height * s.width + at];
        };
        for (int x = 0; x < width; ++x) {
            const detail::Tap tap = detail::tap(xs[x] - 0.5, s.width);
            const int next = std::min(tap.first + 1, s.width - 1);
            for (int y = 0; y < s.height; ++y)
                rows[std::size_t(y) * width + x] = (1 - tap.t) * value(y, tap.first) + tap.t * value(y, next);
        }
        for (int y = 0; y < height; ++y) {
            const detail::Tap tap = detail::tap(ys[y] - 0.5, s.height);
            const int next = std::min(tap.first + 1, s.height - 1);
            for (int x = 0; x < width; ++x)
                answer[(std::size_t(k) * height + y) * width + x] =
                    (1 - tap.t) * rows[std::size_t(tap.first) * width + x] +
                    tap.t * rows[std::size_t(next) * width + x];
        }
    }
    return answer;
}

// The network's output for one picture -> class ids (height, width) at the frame's size.
inline Bytes mask(const float *output, Shape s, const Contract &c, int height, int width) {
    const std::vector<float> found = scores(output, s, c, height, width);
    const std::size_t pixels = std::size_t(height) * width;
    Bytes answer(pixels);
    const double t = c.threshold;
    const float cut = float(c.head == Head::probability ? t : std::log(t / (1 - t)));
    for (std::size_t i = 0; i < pixels; ++i) {
        int best = 0;
        for (int k = 1; k < s.planes; ++k)
            if (found[k * pixels + i] > found[best * pixels + i]) best = k;
        answer[i] = std::uint8_t(s.planes == 1 ? found[i] >= cut : best);
    }
    return answer;
}

// The same for heads that answer class ids (height, width) themselves.
inline Bytes mask(const std::uint8_t *output, Shape s, const Contract &c, int height, int width) {
    const Placement place = placement(c, height, width);
    const auto ys = detail::lines(height, s.height, place.top, place.height, c.height);
    const auto xs = detail::lines(width, s.width, place.left, place.width, c.width);
    Bytes answer;
    for (const double y : ys)
        for (const double x : xs) answer.push_back(output[std::size_t(y) * s.width + std::size_t(x)]);
    return answer;
}

}  // namespace edge_deeplab
