/**
 * Metadata of an ONNX file, read from its protobuf bytes.
 *
 * ONNX Runtime Web does not hand the custom metadata out. The fields wanted stand at the top level of the
 * ModelProto, so the graph, nearly the whole file, is stepped over by its length.
 */
import { UserError } from './errors.js';

// Field numbers of onnx.proto.
const METADATA_PROPS = 14; // in ModelProto, repeated StringStringEntryProto
const KEY = 1;
const VALUE = 2;

// Wire types of protobuf.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/**
 * @param {Uint8Array} bytes The whole file.
 * @returns {Map<string, string>}
 */
export function readMetadata(bytes) {
  const entries = new Map();
  for (const [field, content] of fields(bytes)) {
    if (field !== METADATA_PROPS) continue;
    const parts = new Map(fields(content));
    entries.set(text(parts.get(KEY)), text(parts.get(VALUE)));
  }
  return entries;
}

/**
 * Length-delimited fields of one protobuf message; numbers are stepped over.
 * @param {Uint8Array} bytes
 * @returns {Generator<[number, Uint8Array]>}
 */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; at < bytes.length && shift < 2 ** 53; shift *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * shift; // no bit shifts: lengths may exceed 31 bits
      if (byte < 128) return value;
    }
    throw damaged();
  };
  while (at < bytes.length) {
    const tag = varint();
    const type = tag % 8;
    if (type === VARINT) skipVarint();
    else if (type === FIXED64) at += 8;
    else if (type === FIXED32) at += 4;
    else if (type === LENGTH) {
      const length = varint();
      if (at + length > bytes.length) throw damaged();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw damaged();
  }
  if (at > bytes.length) throw damaged();

  // Negative numbers fill ten bytes, more than `varint` can count.
  function skipVarint() {
    while (at < bytes.length && bytes[at] >= 128) at++;
    at++;
  }
}

/** @param {Uint8Array | undefined} bytes */
function text(bytes) {
  return new TextDecoder().decode(bytes ?? new Uint8Array());
}

function damaged() {
  return new UserError('The model file is damaged or no ONNX file.');
}
