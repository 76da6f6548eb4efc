/** The page: ties the controls to the source, the engine and the compositor. */
import { paintBackdrop } from './backdrops.js';
import { Compositor } from './compositor.js';
import { BrowserEngine, ServerEngine, hasWebGpu, threadsHere, whyOneThread } from './engines.js';
import { UserError, wordsOf } from './errors.js';
import { Pipeline } from './pipeline.js';
import { decodePicture, decodeVideo, endVideo, listCameras, openCamera, openFile } from './sources.js';
import { loadConfig, takeToken } from './config.js';
import { controls, element, fillSelect, onFile, onKeys, remember, showFigures, showHint, showState } from './ui.js';

/** @typedef {import('./engines.js').Engine} Engine */
/** @typedef {import('./sources.js').Source} Source */

const FIGURES_EVERY_MS = 500;

/** The same keys as in the window of `edge-deeplab demo webcam` (demos/options.py), and digits. */
const MODE_KEYS = { b: 'blur', r: 'replace', c: 'cutout', m: 'mask', s: 'side' };

class App {
  /** @param {import('./config.js').Config} config @param {string | null} token */
  constructor(config, token) {
    this.config = config;
    this.token = token;
    this.canvas = /** @type {HTMLCanvasElement} */ (element('canvas'));
    this.compositor = new Compositor(this.canvas);
    /** @type {Promise<Engine> | null} */
    this.engine = null;
    /** @type {Source | null} */
    this.source = null;
    /** Counts the sources asked for and ended: one that opens later is nobody's. */
    this.turn = 0;
    /** @type {Pipeline | null} */
    this.pipeline = null;
    /** @type {TexImageSource} */
    this.backdrop = paintBackdrop('dusk');
    /** Counts the backdrops asked for. */
    this.backdropTurn = 0;
    this.form = controls();
    /** Chosen for this browser; the server has its own. */
    this.model = config.model;
    /** Why WebGPU did not work, in words. */
    this.noWebGpu = '';
    /** Shown beside the camera's picture: the mode before. @type {import('./compositor.js').Effect} */
    this.effect = 'blur';
  }

  // -- engine ------------------------------------------------------------------------------------

  /** Load what the controls name; frames go on with it as soon as it is there. */
  loadEngine() {
    const { model, backend } = this.form.values();
    const before = this.engine;
    this.pipeline?.stop();
    const opening = this.openEngine(model, backend);
    this.engine = opening;
    showHint('engine-hint', backend === 'wasm' ? this.noWebGpu + whyOneThread() : '');
    before?.then((engine) => engine.close(), () => {});
    if (this.source) showState(null, `Loading ${model}\u2026`);
    else showState('welcome', '');
    opening.then(
      (engine) => {
        if (this.engine !== opening) return;
        engine.onLost = (message) => this.engine === opening && this.engineFailed(new UserError(message), backend);
        element('model-line').textContent =
          `${engine.contract.name}, ${engine.contract.precision}, ${engine.title}. ${engine.contract.provenance.license}`;
        showState(null, '');
        if (this.source) this.run();
      },
      (error) => {
        if (this.engine === opening) this.engineFailed(error, backend);
      },
    );
  }

  /**
   * @param {string} model
   * @param {string} backend
   * @returns {Promise<Engine>}
   */
  async openEngine(model, backend) {
    if (backend === 'server') return ServerEngine.open({ token: this.token });
    const headers = /** @type {Record<string, string>} */ (this.token ? { Authorization: `Bearer ${this.token}` } : {});
    const url = `models/${encodeURIComponent(model)}.onnx`;
    return BrowserEngine.open({ url, headers, backend: /** @type {'wasm' | 'webgpu'} */ (backend) });
  }

  /**
   * @param {unknown} error
   * @param {string} backend
   */
  engineFailed(error, backend) {
    this.engine = null;
    if (backend !== 'webgpu') {
      this.fail(error);
      return;
    }
    this.noWebGpu = `WebGPU did not work here (${wordsOf(error)}), so WASM is used. `;
    this.form.set('backend', 'wasm');
    this.loadEngine();
  }

  // -- source ------------------------------------------------------------------------------------

  /** @param {() => Promise<Source>} open */
  async begin(open) {
    this.endSource();
    showState('starting', 'Starting\u2026');
    const { turn } = this;
    try {
      const source = await open();
      if (turn !== this.turn) {
        source.stop(); // another one was chosen meanwhile, or the camera was unplugged
        return;
      }
      this.source = source;
    } catch (error) {
      if (turn === this.turn) this.fail(error);
      return;
    }
    showState(null, 'Loading the model\u2026');
    this.form.set('mirror', this.source.live);
    if (!this.engine) this.loadEngine();
    const engine = this.engine;
    await engine?.catch(() => {});
    if (engine === this.engine) this.run();
  }

  startCamera() {
    const { camera, height } = this.form.values();
    return this.begin(async () => {
      const source = await openCamera({
        deviceId: camera || null,
        height: Number(height),
        onEnded: (message) => this.fail(new UserError(message)),
      });
      await this.fillCameras();
      return source;
    });
  }

  async fillCameras() {
    const { camera } = this.form.values();
    fillSelect('camera', [['', 'Default'], ...(await listCameras())], camera);
  }

  endSource() {
    this.turn++;
    this.pipeline?.stop();
    this.pipeline = null;
    this.source?.stop();
    this.source = null;
    element('pause').setAttribute('aria-pressed', 'false');
  }

  stop() {
    this.endSource();
    element('screen').style.aspectRatio = '';
    showState('welcome', '');
    showFigures(null);
  }

  // -- frames ------------------------------------------------------------------------------------

  async run() {
    const { source, engine: opening } = this;
    const engine = await opening?.catch(() => null); // whoever loads it says what is wrong
    if (!source || !engine || source !== this.source || opening !== this.engine) return;
    this.pipeline?.stop();
    element('pause').setAttribute('aria-pressed', 'false');
    const { smooth, refine } = this.form.values();
    engine.restart({ smooth, refine });
    this.pipeline = new Pipeline({
      source,
      engine,
      compositor: this.compositor,
      onFrame: () => this.draw(),
      onError: (error) => this.fail(error),
    });
    this.pipeline.start();
  }

  draw() {
    const { mode, blur, mirror } = this.form.values();
    this.compositor.draw({
      effect: this.effect,
      beside: mode === 'side',
      mirror,
      blur: Number(blur),
      backdrop: this.backdrop,
    });
    this.fitScreen();
    showState('live', '');
    this.canvas.setAttribute('aria-label', `${this.source?.name ?? 'Picture'}, shown as: ${this.form.modeName()}`);
  }

  /** The screen has the frame's shape, also side by side: the controls under it stay where they are. */
  fitScreen() {
    const { width, height } = this.compositor.frame ?? { width: 4, height: 3 };
    element('screen').style.aspectRatio = `${width} / ${height}`;
  }

  redraw() {
    if (this.pipeline) this.draw();
  }

  pause() {
    if (!this.pipeline) return;
    this.pipeline.pause(!this.pipeline.paused);
    element('pause').setAttribute('aria-pressed', String(this.pipeline.paused));
  }

  /** What is on the screen, as a PNG; a cut-out keeps its transparency. */
  save() {
    if (!this.pipeline) return;
    this.redraw(); // WebGL keeps its picture only until the browser has shown it
    this.canvas.toBlob((blob) => {
      if (!blob) return;
      const link = document.createElement('a');
      link.href = URL.createObjectURL(blob);
      link.download = `edge-deeplab-${this.form.values().mode}.png`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  /** @param {unknown} error */
  fail(error) {
    this.endSource();
    element('problem-text').textContent = wordsOf(error);
    showState('problem', '');
    showFigures(null);
    element('retry').focus();
  }

  // -- controls ----------------------------------------------------------------------------------

  async fillControls() {
    const { models, server } = this.config;
    const browser = models.some(({ name }) => name === this.config.model);
    /** @type {[string, string][]} */
    const backends = server ? [['server', capital(server.title)]] : [];
    if (browser || !server) {
      const threads = threadsHere();
      backends.push(['wasm', `WASM, ${threads} thread${threads > 1 ? 's' : ''}`]);
      if (await hasWebGpu()) backends.push(['webgpu', 'WebGPU']);
    }
    fillSelect('backend', backends, backends[0][0]);
    this.form.restore();
    this.changed('');
  }

  /** @param {string} backend */
  fillModels(backend) {
    const names = backend === 'server' ? [this.config.model] : this.config.models.map(({ name }) => name);
    fillSelect('model', names.map((name) => [name, name]), backend === 'server' ? this.config.model : this.model);
  }

  /** @param {string} name Of the control that changed. */
  async changed(name) {
    const { mode, backend, backdrop, color } = this.form.values();
    if (mode !== 'side') this.effect = mode;
    element('screen').dataset.mode = mode;
    if (name === 'model') this.model = this.form.values().model;
    if (name === '' || name === 'backend') this.fillModels(backend);
    if (name === 'backend') this.noWebGpu = '';
    this.form.showFor(this.effect, backend);
    const local = backend !== 'server';
    const promise = local
      ? 'The model runs in this browser. Your picture never leaves this device.'
      : `Frames go to the Python process at ${location.host} and come back as masks. Nothing is stored.`;
    element('promise').textContent = promise;
    element('privacy').textContent = local ? 'Nothing leaves this device' : `Frames go to ${location.host}`;
    if (backdrop !== 'file' && ['', 'backdrop', 'color'].includes(name)) {
      this.backdropTurn++;
      this.useBackdrop(paintBackdrop(backdrop === 'color' ? color : backdrop));
    }
    if (name === 'model' || name === 'backend') this.loadEngine();
    else if (name === 'smooth' || name === 'refine') this.run();
    else if ((name === 'camera' || name === 'height') && this.source?.live) this.startCamera();
    else this.redraw();
    remember(this.form.values());
  }

  /** @param {TexImageSource} backdrop */
  useBackdrop(backdrop) {
    if (this.backdrop instanceof HTMLVideoElement) endVideo(this.backdrop);
    this.backdrop = backdrop;
    showHint('backdrop-hint', '');
    this.redraw();
  }

  /** @param {File} file */
  async useBackdropFile(file) {
    const turn = ++this.backdropTurn;
    try {
      const backdrop = await (file.type.startsWith('video/') ? decodeVideo(file) : decodePicture(file));
      if (turn === this.backdropTurn) this.useBackdrop(backdrop);
      else if (backdrop instanceof HTMLVideoElement) endVideo(backdrop);
    } catch (error) {
      if (turn === this.backdropTurn) showHint('backdrop-hint', wordsOf(error)); // the one before stays
    }
  }

  listen() {
    element('start').onclick = () => this.startCamera();
    element('retry').onclick = () => this.startCamera();
    element('pause').onclick = () => this.pause();
    element('save').onclick = () => this.save();
    element('stop').onclick = () => this.stop();
    element('open').onclick = element('problem-open').onclick = () => element('file').click();
    this.form.onChange((name) => this.changed(name));
    onFile('file', (file) => this.begin(() => openFile(file)));
    onFile('backdrop-file', (file) => this.useBackdropFile(file));
    // Not with the other settings: a second press, for another file, changes nothing in the form.
    element('backdrop-choose').onclick = () => element('backdrop-file').click();
    onKeys({
      ' ': () => this.pause(),
      p: () => this.save(),
      f: () => this.form.toggle('mirror'),
      t: () => this.form.toggle('smooth'),
      e: () => this.form.toggle('refine'),
      ...Object.fromEntries(
        Object.entries(MODE_KEYS).flatMap(([key, mode], index) => {
          const choose = () => this.form.choose('mode', mode);
          return [[key, choose], [index + 1, choose]];
        }),
      ),
    });
    navigator.mediaDevices?.addEventListener('devicechange', () => this.fillCameras());
    this.canvas.addEventListener('webglcontextlost', (event) => event.preventDefault());
    this.canvas.addEventListener('webglcontextrestored', () => {
      this.compositor = new Compositor(this.canvas);
      if (this.pipeline) this.run();
    });
    setInterval(() => this.pipeline && showFigures(this.pipeline.figures()), FIGURES_EVERY_MS);
    // Not before somebody listens: a press on a page that is still loading would be lost without a word.
    for (const id of ['start', 'open']) /** @type {HTMLButtonElement} */ (element(id)).disabled = false;
  }
}

/** @param {string} text */
function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

try {
  const token = takeToken();
  const config = await loadConfig(token);
  element('version').textContent = config.version;
  const app = new App(config, token);
  await app.fillControls();
  app.listen();
  app.loadEngine();
} catch (error) {
  element('problem-text').textContent = wordsOf(error);
  // Without a working page there is nothing to show; from the beginning it may work.
  element('problem-open').hidden = true;
  element('retry').textContent = 'Load the page again';
  element('retry').onclick = () => location.reload();
  showState('problem', '');
}
