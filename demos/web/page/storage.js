/** What the browser keeps for this page. A browser that keeps nothing (blocked cookies) forgets, and all else works. */

/** @typedef {'localStorage' | 'sessionStorage'} Area For good, or until the tab closes. */

/**
 * @param {Area} area
 * @param {string} key
 * @returns {string | null}
 */
export function recall(area, key) {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {Area} area
 * @param {string} key
 * @param {string} value
 */
export function keep(area, key, value) {
  try {
    window[area].setItem(key, value);
  } catch {
    // It is asked for again next time.
  }
}
