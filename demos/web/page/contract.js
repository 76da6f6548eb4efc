/**
 * The input contract, read from the model file: the same record as edge_deeplab/spec.py, field by field.
 * Nothing about a model is assumed that does not stand in it.
 */
import { checksumOf } from './checksum.js';
import { UserError } from './errors.js';
import { readMetadata } from './onnx.js';

const METADATA_KEY = 'edge_deeplab.contract';
const FORMAT = 1;

/**
 * @typedef {object} Contract
 * @property {string} name
 * @property {number} height
 * @property {number} width
 * @property {{name: string, color: [number, number, number]}[]} classes RGB 0..255
 * @property {'stretch' | 'letterbox'} resize
 * @property {'RGB' | 'BGR'} channels
 * @property {number[]} mean
 * @property {number[]} std
 * @property {'NCHW' | 'NHWC'} layout
 * @property {'float32' | 'uint8'} dtype
 * @property {'logits' | 'logits-full' | 'classmap' | 'probability'} head
 * @property {number} head_stride
 * @property {number} threshold
 * @property {string} precision
 * @property {{license: string}} provenance
 */

/** Field -> what it must be for this page to feed the model rightly. @type {Record<string, (value: any) => boolean>} */
const CHECKS = {
  name: isText,
  height: isSize,
  width: isSize,
  classes: isClasses,
  resize: oneOf('stretch', 'letterbox'),
  channels: oneOf('RGB', 'BGR'),
  mean: isTriple,
  std: (value) => isTriple(value) && value.every((/** @type {number} */ v) => v !== 0),
  layout: oneOf('NCHW', 'NHWC'),
  dtype: oneOf('float32', 'uint8'),
  head: oneOf('logits', 'logits-full', 'classmap', 'probability'),
  head_stride: isSize,
  threshold: (value) => isNumber(value) && value > 0 && value < 1,
  precision: isText,
  provenance: (value) => typeof value === 'object' && value !== null && isText(value.license),
};

/**
 * @param {Uint8Array} model Bytes of an `.onnx` file.
 * @returns {Contract}
 */
export function contractOf(model) {
  const text = readMetadata(model).get(METADATA_KEY);
  if (text === undefined) {
    throw new UserError(
      'This ONNX file carries no input contract of edge-deeplab, and how to feed it is never guessed. ' +
        'Export it with "edge-deeplab export".',
    );
  }
  return parseContract(text);
}

/**
 * @param {string} text The record as JSON.
 * @returns {Contract}
 */
export function parseContract(text) {
  let record;
  try {
    record = JSON.parse(text);
  } catch {
    throw new UserError('The model holds a damaged input contract: it is not JSON.');
  }
  if (record?.format !== FORMAT) {
    throw new UserError(
      `The model has an input contract of format ${record?.format}, this page reads ${FORMAT}. ` +
        'Update edge-deeplab.',
    );
  }
  for (const [field, holds] of Object.entries(CHECKS)) {
    if (!holds(record[field])) {
      throw new UserError(`The model's input contract is damaged: ${field} is ${JSON.stringify(record[field])}.`);
    }
  }
  if (record.sha256 !== checksumOf(text)) {
    const what = record.sha256 ? 'was changed after it was written' : 'has lost its checksum';
    throw new UserError(`The model's input contract ${what}. Export or copy the model again.`);
  }
  return record;
}

/**
 * Two classes, one score: foreground where its probability reaches the threshold.
 * @param {Contract} contract
 */
export function isBinary(contract) {
  return contract.classes.length === 2;
}

/** @param {any} value */
function isText(value) {
  return typeof value === 'string';
}

/** @param {any} value */
function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

/** @param {any} value */
function isSize(value) {
  return Number.isInteger(value) && value >= 1;
}

/** @param {any} value */
function isTriple(value) {
  return Array.isArray(value) && value.length === 3 && value.every(isNumber);
}

/** @param {any} value */
function isClasses(value) {
  return (
    Array.isArray(value) &&
    value.length >= 2 &&
    value.length <= 256 &&
    value.every((entry) => isText(entry?.name) && isTriple(entry?.color))
  );
}

/**
 * @param {string[]} values
 * @returns {(value: any) => boolean}
 */
function oneOf(...values) {
  return (value) => values.includes(value);
}
