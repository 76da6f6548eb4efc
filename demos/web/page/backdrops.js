/** What can stand behind the person in mode `replace`. */

/** Colours from top to bottom; style.css shows the same ones. @type {Record<string, [string, string]>} */
const GRADIENTS = {
  dusk: ['#27304f', '#c98a78'],
  sea: ['#bfe0ea', '#2d7d90'],
  studio: ['#f1efec', '#bdb8b0'],
};

/**
 * @param {string} name A key of GRADIENTS, or a CSS colour.
 * @returns {ImageBitmap}
 */
export function paintBackdrop(name) {
  const canvas = new OffscreenCanvas(640, 480);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
  const [top, bottom] = GRADIENTS[name] ?? [name, name];
  const gradient = context.createLinearGradient(0, 0, 0, canvas.height);
  gradient.addColorStop(0, top);
  gradient.addColorStop(1, bottom);
  context.fillStyle = gradient;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.transferToImageBitmap();
}
