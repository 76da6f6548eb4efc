/** What the server says about itself, and the token that it may ask for. */
import { UserError } from './errors.js';
import { keep, recall } from './storage.js';

/**
 * @typedef {object} Config
 * @property {string} version
 * @property {string} model Name of the model asked for on the command line.
 * @property {{name: string}[]} models ONNX files that this browser may run.
 * @property {{title: string} | null} server The Python runtime, where there is one.
 */

/**
 * The token stands behind the `#` of the printed address, which browsers keep to themselves. It is taken out of
 * the address bar, so that it is not shared by mistake, and kept until the tab closes.
 * @returns {string | null}
 */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token) {
    keep('sessionStorage', 'token', token);
    history.replaceState(null, '', location.pathname);
  }
  return token ?? recall('sessionStorage', 'token');
}

/**
 * @param {string | null} token
 * @returns {Promise<Config>}
 */
export async function loadConfig(token) {
  let response;
  try {
    response = await fetch('config.json', token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  } catch {
    throw new UserError('The server does not answer. Is "edge-deeplab demo web" still running?');
  }
  if (response.status === 401) {
    throw new UserError('This page asks for a token. Open it with the whole address that the program printed.');
  }
  if (!response.ok) throw new UserError(`The server answered ${response.status}.`);
  return response.json();
}
