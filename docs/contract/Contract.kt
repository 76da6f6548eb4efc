// What has to be computed around the network of an edge-deeplab artefact: frame -> tensor, output -> mask.
// The words for it are in contract.md. Plain Kotlin, no dependencies; for Android take it as it is. Apache-2.0.
//
//   val portrait = Contract()                                            // its defaults are those of `portrait`
//   val frame = Frame(rgba, height, width, rowStride, pixelStride = 4, rgb = true)   // CameraX, RGBA_8888
//   val image = portrait.tensor(frame)                                   // FloatArray, put it into the input buffer
//   ... run the network on image ...
//   val mask = portrait.mask(logits, Shape(1, 72, 72), height, width)    // ByteArray of class ids
package edge_deeplab

import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min

enum class Head { LOGITS, PROBABILITY, CLASSMAP }

/**
 * Pixels of 8 bits a channel, three or four bytes a pixel, turned upright already.
 *
 * @param rowStride bytes from one row to the next
 * @param rgb red comes first, else blue
 */
class Frame(
    val data: ByteArray,
    val height: Int,
    val width: Int,
    val rowStride: Int = width * 3,
    val pixelStride: Int = 3,
    val rgb: Boolean = false,
) {
    fun at(y: Int, x: Int, c: Int): Int = data[y * rowStride + x * pixelStride + c].toInt() and 0xff
}

/** Planes, rows and columns of one picture's output. */
class Shape(val planes: Int, val height: Int, val width: Int)

class Placement(val top: Int, val left: Int, val height: Int, val width: Int)

/** The fields of the JSON record that the arithmetic depends on. */
class Contract(
    val height: Int = 288,
    val width: Int = 288,
    val letterbox: Boolean = false,
    val bgr: Boolean = false,
    val nhwc: Boolean = false,
    val mean: DoubleArray = doubleArrayOf(128.0, 128.0, 128.0),
    val std: DoubleArray = doubleArrayOf(128.0, 128.0, 128.0),
    val head: Head = Head.LOGITS,
    val threshold: Double = 0.5,
) {
    fun placement(h: Int, w: Int): Placement {
        if (!letterbox) return Placement(0, 0, height, width)
        val factor = min(height.toDouble() / h, width.toDouble() / w)
        val h2 = min(height, max(1, Math.rint(h * factor).toInt()))
        val w2 = min(width, max(1, Math.rint(w * factor).toInt()))
        return Placement((height - h2) / 2, (width - w2) / 2, h2, w2)
    }

    /** A frame -> bytes (height, width, 3): the tensor of `uint8` inputs in NHWC; `int8` is every byte xor 0x80. */
    fun toInputSize(frame: Frame): ByteArray {
        val place = placement(frame.height, frame.width)
        val inner = resize(frame, place.height, place.width)
        val answer = ByteArray(height * width * 3) { Math.rint(mean[it % 3]).coerceIn(0.0, 255.0).toInt().toByte() }
        val swap = frame.rgb == bgr
        for (y in 0 until place.height) for (x in 0 until place.width) for (c in 0..2) {
            val from = inner.at(y, x, if (swap) 2 - c else c)
            answer[((place.top + y) * width + place.left + x) * 3 + c] = from.toByte()
        }
        return answer
    }

    /** A frame -> the float32 input tensor of one picture. */
    fun tensor(frame: Frame): FloatArray {
        val image = toInputSize(frame)
        val pixels = image.size / 3
        val answer = FloatArray(image.size)
        for (c in 0..2) {
            val factor = (1 / std[c]).toFloat()
            val offset = (mean[c] / std[c]).toFloat()
            for (i in 0 until pixels) {
                val value = (image[i * 3 + c].toInt() and 0xff).toFloat() * factor - offset
                answer[if (nhwc) i * 3 + c else c * pixels + i] = value
            }
        }
        return answer
    }

    /** The network's output for one picture -> scores of every plane at the frame's size, (planes, h, w). */
    fun scores(output: FloatArray, shape: Shape, h: Int, w: Int): FloatArray {
        val place = placement(h, w)
        val down = lines(h, shape.height, place.top, place.height, height).map { tap(it - 0.5, shape.height) }
        val across = lines(w, shape.width, place.left, place.width, width).map { tap(it - 0.5, shape.width) }
        val answer = FloatArray(shape.planes * h * w)
        val rows = FloatArray(shape.height * w)
        for (k in 0 until shape.planes) {
            fun value(y: Int, x: Int): Float {
                val at = y * shape.width + x
                return output[if (nhwc) at * shape.planes + k else k * shape.height * shape.width + at]
            }
            for (x in 0 until w) {
                val (first, t) = across[x]
                val next = min(first + 1, shape.width - 1)
                for (y in 0 until shape.height) rows[y * w + x] = (1 - t) * value(y, first) + t * value(y, next)
            }
            for (y in 0 until h) {
                val (first, t) = down[y]
                val next = min(first + 1, shape.height - 1)
                for (x in 0 until w)
                    answer[(k * h + y) * w + x] = (1 - t) * rows[first * w + x] + t * rows[next * w + x]
            }
        }
        return answer
    }

    /** The network's output for one picture -> class ids (h, w) at the frame's size. */
    fun mask(output: FloatArray, shape: Shape, h: Int, w: Int): ByteArray {
        val found = scores(output, shape, h, w)
        val pixels = h * w
        val cut = (if (head == Head.PROBABILITY) threshold else ln(threshold / (1 - threshold))).toFloat()
        return ByteArray(pixels) { i ->
            var best = 0
            for (k in 1 until shape.planes) if (found[k * pixels + i] > found[best * pixels + i]) best = k
            if (shape.planes > 1) best.toByte() else if (found[i] >= cut) 1 else 0
        }
    }

    /** The same for heads that answer class ids (height, width) themselves. */
    fun mask(output: ByteArray, shape: Shape, h: Int, w: Int): ByteArray {
        val place = placement(h, w)
        val ys = lines(h, shape.height, place.top, place.height, height)
        val xs = lines(w, shape.width, place.left, place.width, width)
        return ByteArray(h * w) { output[ys[it / w].toInt() * shape.width + xs[it % w].toInt()] }
    }
}

// -- resizing ---------------------------------------------------------------------------------------

private data class Tap(val first: Int, val t: Float)

private fun inside(tap: Tap, size: Int): Tap =
    if (tap.first < 0) Tap(0, 0f) else if (tap.first >= size - 1) Tap(size - 1, 0f) else tap

private fun tap(p: Double, size: Int): Tap = floor(p).let { inside(Tap(it.toInt(), (p - it).toFloat()), size) }

/** Where the pixels of a frame lie along one side of the output, half a pixel not yet taken off. */
private fun lines(to: Int, size: Int, begin: Int, length: Int, whole: Int): List<Double> =
    List(to) { (begin + (it + 0.5) * length / to) * size / whole }

fun resize(frame: Frame, h: Int, w: Int): Frame {
    var f = frame
    while (f.height >= 2 * h && f.width >= 2 * w) f = halved(f)
    return if (f.height == h && f.width == w) f else bilinear(f, h, w)
}

private fun halved(f: Frame): Frame {
    val h = f.height / 2
    val w = f.width / 2
    val answer = ByteArray(h * w * 3)
    if (f.height % 2 == 0 && f.width % 2 == 0) {
        for (y in 0 until h) for (x in 0 until w) for (c in 0..2) {
            val sum = f.at(2 * y, 2 * x, c) + f.at(2 * y, 2 * x + 1, c) +
                f.at(2 * y + 1, 2 * x, c) + f.at(2 * y + 1, 2 * x + 1, c)
            answer[(y * w + x) * 3 + c] = ((sum + 2) shr 2).toByte()
        }
        return Frame(answer, h, w, rgb = f.rgb)
    }
    val across = shares(w, f.width)
    val down = shares(h, f.height)
    val rows = FloatArray(f.height * w * 3)
    for (y in 0 until f.height) for (x in 0 until w) for ((k, share) in across[x]) for (c in 0..2)
        rows[(y * w + x) * 3 + c] += share * f.at(y, k, c)
    for (y in 0 until h) for (i in 0 until w * 3) {
        var sum = 0f
        for ((k, share) in down[y]) sum += share * rows[k * w * 3 + i]
        answer[y * w * 3 + i] = Math.rint(sum.toDouble()).toInt().toByte()
    }
    return Frame(answer, h, w, rgb = f.rgb)
}

private fun shares(to: Int, from: Int): List<List<Pair<Int, Float>>> {
    val s = from.toDouble() / to
    return List(to) { i ->
        ((i * s).toInt() until min(from, ceil((i + 1) * s).toInt())).mapNotNull { k ->
            val covered = min((i + 1) * s, k + 1.0) - max(i * s, k.toDouble())
            if (covered > 1e-3) Pair(k, (covered / s).toFloat()) else null
        }
    }
}

private fun taps(to: Int, from: Int): List<Tap> {
    val s = from.toDouble() / to
    return List(to) {
        val p = ((it + 0.5) * s - 0.5).toFloat()
        val first = floor(p).toInt()
        Tap(first, p - first.toFloat())
    }
}

private fun weight(t: Float): Int = Math.rint((2048f * t).toDouble()).toInt()

private fun bilinear(f: Frame, h: Int, w: Int): Frame {
    val rows = IntArray(f.height * w * 3)
    taps(w, f.width).forEachIndexed { x, outside ->
        val (first, t) = inside(outside, f.width)
        val next = min(first + 1, f.width - 1)
        val a0 = weight(1 - t)
        val a1 = weight(t)
        for (y in 0 until f.height) for (c in 0..2)
            rows[(y * w + x) * 3 + c] = a0 * f.at(y, first, c) + a1 * f.at(y, next, c)
    }
    val answer = ByteArray(h * w * 3)
    taps(h, f.height).forEachIndexed { y, (first, t) ->
        val b0 = weight(1 - t)
        val b1 = weight(t)
        val upper = first.coerceIn(0, f.height - 1) * w * 3
        val lower = (first + 1).coerceIn(0, f.height - 1) * w * 3
        for (i in 0 until w * 3) {
            val sum = ((b0 * (rows[upper + i] shr 4)) shr 16) + ((b1 * (rows[lower + i] shr 4)) shr 16)
            answer[y * w * 3 + i] = ((sum + 2) shr 2).toByte()
        }
    }
    return Frame(answer, h, w, rgb = f.rgb)
}
