// Runs contract.hpp for test_contract.py: frame or output on standard input, tensor or mask on standard output.
//
//   check tensor HEIGHT WIDTH CONTRACT...
//   check mask HEIGHT WIDTH PLANES ROWS COLUMNS CONTRACT...
//
// CONTRACT: height width letterbox bgr nhwc dtype head threshold mean*3 std*3

#include <cstdio>
#include <cstring>
#include <string>

#include "contract.hpp"

namespace ed = edge_deeplab;

template <class T>
static std::vector<T> read() {
    std::vector<T> answer;
    T value;
    while (std::fread(&value, sizeof value, 1, stdin) == 1) answer.push_back(value);
    return answer;
}

template <class T>
static int write(const std::vector<T> &values) {
    return std::fwrite(values.data(), sizeof(T), values.size(), stdout) == values.size() ? 0 : 1;
}

int main(int, char **argv) {
    const bool to_tensor = !std::strcmp(argv[1], "tensor");
    char **at = argv + 2;
    const int height = std::stoi(*at++), width = std::stoi(*at++);
    ed::Shape shape{};
    if (!to_tensor) shape = {std::stoi(at[0]), std::stoi(at[1]), std::stoi(at[2])}, at += 3;
    ed::Contract c;
    c.height = std::stoi(*at++), c.width = std::stoi(*at++);
    c.letterbox = std::stoi(*at++), c.bgr = std::stoi(*at++), c.nhwc = std::stoi(*at++);
    const std::string type = *at++, head = *at++;
    c.head = head == "classmap" ? ed::Head::classmap
             : head == "probability" ? ed::Head::probability : ed::Head::logits;
    c.threshold = std::stod(*at++);
    for (double &value : c.mean) value = std::stod(*at++);
    for (double &value : c.std) value = std::stod(*at++);

    if (to_tensor) {
        // Rows lie further apart than they are long, as in most camera buffers.
        const ed::Bytes given = read<std::uint8_t>();
        const int stride = width * 3 + 5;
        ed::Bytes padded(std::size_t(stride) * height, 77);
        for (int y = 0; y < height; ++y)
            std::memcpy(&padded[std::size_t(y) * stride], &given[std::size_t(y) * width * 3], width * 3);
        const ed::Frame frame{padded.data(), height, width, stride};
        if (type == "float32") return write(ed::tensor(frame, c));
        ed::Bytes bytes = ed::to_input_size(frame, c);
        if (type == "int8")
            for (auto &byte : bytes) byte ^= 0x80;
        return write(bytes);
    }
    if (c.head == ed::Head::classmap) return write(ed::mask(read<std::uint8_t>().data(), shape, c, height, width));
    return write(ed::mask(read<float>().data(), shape, c, height, width));
}
