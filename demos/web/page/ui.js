/** Reading and writing the page's elements. */
import { keep, recall } from './storage.js';

/** @typedef {import('./compositor.js').Effect | 'side'} Mode */
/** @typedef {import('./pipeline.js').Figures} Figures */

/**
 * @typedef {object} Values
 * @property {Mode} mode
 * @property {string} blur Strength.
 * @property {string} backdrop
 * @property {string} color
 * @property {string} model
 * @property {string} backend
 * @property {string} camera
 * @property {string} height
 * @property {boolean} mirror
 * @property {boolean} smooth
 * @property {boolean} refine
 */

const STORE = 'edge-deeplab';
// The rest depends on what is plugged in or asked for on the command line.
const REMEMBERED = ['mode', 'blur', 'color', 'height'];

/** @param {string} id */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** The settings, by the names of their inputs. */
export function controls() {
  const form = /** @type {HTMLFormElement} */ (element('controls'));
  /** @type {(name: string) => any} An input, a select, or a list of radio buttons. */
  const named = (name) => form.elements.namedItem(name);
  /** @type {(name: string) => void} */
  let listener = () => {};
  const self = {
    /** @returns {Values} */
    values() {
      const entries = Object.fromEntries(new FormData(form));
      for (const name of ['mirror', 'smooth', 'refine']) entries[name] = named(name).checked;
      return /** @type {any} */ ({ ...entries, model: named('model').value }); // left out while disabled
    },

    /** @param {string} name @param {string | boolean} value */
    set(name, value) {
      if (typeof value === 'boolean') named(name).checked = value;
      else named(name).value = value;
    },

    /** @param {string} name */
    toggle(name) {
      named(name).checked = !named(name).checked;
      listener(name);
    },

    /** @param {string} name Of radio buttons. @param {string} value */
    choose(name, value) {
      named(name).value = value;
      listener(name);
    },

    modeName: () => form.querySelector('[name=mode]:checked + span')?.textContent ?? '',

    /** @param {(name: string) => void} callback */
    onChange(callback) {
      listener = callback;
      form.addEventListener('submit', (event) => event.preventDefault());
      form.addEventListener('input', ({ target }) => {
        const { name } = /** @type {HTMLInputElement} */ (target);
        if (name === 'color') self.set('backdrop', 'color');
        callback(name);
      });
    },

    /** Show the settings of an effect only. @param {string} effect @param {string} backend */
    showFor(effect, backend) {
      for (const part of form.querySelectorAll('[data-for]')) {
        const wanted = /** @type {HTMLElement} */ (part).dataset.for?.split(' ') ?? [];
        /** @type {HTMLElement} */ (part).hidden = !wanted.includes(effect);
      }
      named('model').disabled = backend === 'server'; // the server has loaded its one model
    },

    /** Settings of the last visit; what another version stored may mean nothing here. */
    restore() {
      /** @type {[string, string][]} */
      const stored = [...new URLSearchParams(recall('localStorage', STORE) ?? '')].filter(([name]) => REMEMBERED.includes(name));
      for (const [name, value] of stored) {
        const before = named(name).value;
        self.set(name, value);
        if (named(name).value !== value) self.set(name, before);
      }
    },
  };
  return self;
}

/** @param {Values} values */
export function remember(values) {
  const entries = Object.entries(values).filter(([name]) => REMEMBERED.includes(name));
  keep('localStorage', STORE, new URLSearchParams(/** @type {[string, string][]} */ (entries)).toString());
}

/**
 * @param {string} name
 * @param {[string, string][]} options Value and text.
 * @param {string} chosen
 */
export function fillSelect(name, options, chosen) {
  const select = /** @type {HTMLSelectElement} */ (document.querySelector(`select[name=${name}]`));
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

/**
 * @param {'welcome' | 'starting' | 'live' | 'problem' | null} state Null: as it is.
 * @param {string} busy What is being waited for.
 */
export function showState(state, busy) {
  element('busy').textContent = busy;
  if (!state || element('screen').dataset.state === state) return;
  element('screen').dataset.state = state;
  element('welcome').hidden = state !== 'welcome';
  element('problem').hidden = state !== 'problem';
  for (const id of ['pause', 'save', 'stop']) {
    /** @type {HTMLButtonElement} */ (element(id)).disabled = state !== 'live';
  }
}

/** @param {string} id @param {string} text What the visitor should know of a choice; '' for nothing. */
export function showHint(id, text) {
  element(id).hidden = text === '';
  element(id).textContent = text;
}

/** @param {Figures | null} figures */
export function showFigures(figures) {
  const ms = (/** @type {number} */ value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  const shown = {
    fps: figures && figures.fps.toFixed(1),
    latency: figures && ms(figures.latency),
    network: figures && ms(figures.times.network),
    rest: figures && ms(figures.latency - figures.times.network),
    dropped: figures && String(figures.dropped),
  };
  for (const [id, text] of Object.entries(shown)) element(id).textContent = text ?? '\u2013';
}

/**
 * @param {string} id Of a file input.
 * @param {(file: File) => void} use
 */
export function onFile(id, use) {
  const input = /** @type {HTMLInputElement} */ (element(id));
  input.onchange = () => {
    const file = input.files?.[0];
    input.value = ''; // the same file may be chosen again
    if (file) use(file);
  };
}

/**
 * @param {Record<string, () => void>} actions By key.
 */
export function onKeys(actions) {
  document.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    // Selects and sliders use letters and digits themselves; the space bar presses what has the focus.
    if (target.matches('select, input[type=range], input[type=color]')) return;
    if (event.key === ' ' && target !== document.body) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
