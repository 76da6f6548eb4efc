// Runs Contract.kt for test_contract.py, as check.cpp runs contract.hpp. Frames arrive as BGR and are used as RGBA.

import edge_deeplab.Contract
import edge_deeplab.Frame
import edge_deeplab.Head
import edge_deeplab.Shape
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun rgba(bgr: ByteArray, height: Int, width: Int): Frame {
    val stride = width * 4 + 12
    val data = ByteArray(stride * height) { 77 }
    for (y in 0 until height) for (x in 0 until width) for (c in 0..2)
        data[y * stride + x * 4 + c] = bgr[(y * width + x) * 3 + 2 - c]
    return Frame(data, height, width, stride, pixelStride = 4, rgb = true)
}

fun main(args: Array<String>) {
    val words = args.iterator()
    val toTensor = words.next() == "tensor"
    fun int() = words.next().toInt()
    fun three() = DoubleArray(3) { words.next().toDouble() }
    val height = int()
    val width = int()
    val shape = if (toTensor) Shape(1, 1, 1) else Shape(int(), int(), int())
    val inputHeight = int()
    val inputWidth = int()
    val flags = List(3) { int() == 1 }
    val type = words.next()
    val head = Head.valueOf(words.next().replace("-full", "").uppercase())
    val threshold = words.next().toDouble()
    val contract = Contract(
        inputHeight, inputWidth, flags[0], flags[1], flags[2], three(), three(), head, threshold
    )
    val given = System.`in`.readBytes()
    val answer: ByteArray
    if (toTensor && type == "float32") {
        val tensor = contract.tensor(rgba(given, height, width))
        val buffer = ByteBuffer.allocate(tensor.size * 4).order(ByteOrder.LITTLE_ENDIAN)
        buffer.asFloatBuffer().put(tensor)
        answer = buffer.array()
    } else if (toTensor) {
        val bytes = contract.toInputSize(rgba(given, height, width))
        answer = if (type == "int8") ByteArray(bytes.size) { (bytes[it].toInt() xor 0x80).toByte() } else bytes
    } else if (head == Head.CLASSMAP) {
        answer = contract.mask(given, shape, height, width)
    } else {
        val floats = FloatArray(given.size / 4)
        ByteBuffer.wrap(given).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(floats)
        answer = contract.mask(floats, shape, height, width)
    }
    System.out.write(answer)
    System.out.flush()
}
