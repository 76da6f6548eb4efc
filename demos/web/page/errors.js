/** Something the person in front of the page can put right; its text is shown to them as it is. */
export class UserError extends Error {
  name = 'UserError';
}

/**
 * The text to show for any error.
 * @param {unknown} error
 * @returns {string}
 */
export function wordsOf(error) {
  if (error instanceof UserError) return error.message;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
