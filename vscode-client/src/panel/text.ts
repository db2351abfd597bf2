// Text from models and tools, made harmless and short enough to show; and numbers and times in words.
//
// Invariant: pure functions of their arguments, no DOM.

/** The most characters of one message, tool output or code block that are drawn; the rest opens as a document. */
export const MOST_SHOWN = 200_000;

// CSI, OSC (ended by BEL or ST), other string sequences, and two-character escapes; C1 forms too.
// eslint-disable-next-line no-control-regex
const ANSI =
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u009d\u0090\u0098\u009e\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)?|\u001b[ -/]*[0-~]?/g;
// Control characters but tab and line ends.
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;
// Joiners and selectors are part of a picture where they follow one, and hidden everywhere else.
const HIDDEN =
  /[\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e0fff}]|(?<!\p{Extended_Pictographic})\ufe0f|(?<!\p{Extended_Pictographic}\ufe0f?)\u200d/gu;

// What makes text be read in another order than it has.
const TURNED = /[\u202a-\u202e\u2066-\u2069]/g;

/**
 * Return a text without terminal escapes and control characters, as a terminal would leave it after carriage returns.
 * What turns the direction of reading is written out.
 */
export function plain(text: string): string {
  const clean = /[\u001b\u0080-\u009f]/.test(text) ? text.replace(ANSI, '') : text;
  const lines = clean.includes('\r') ? clean.split('\n').map(overwritten).join('\n') : clean;
  return lines.replace(CONTROL, '').replace(TURNED, written);
}

/** What a terminal would leave of a line with carriage returns. Not by a pattern: that takes the square of its length. */
function overwritten(line: string): string {
  let end = line.length;
  while (end > 0 && line.charCodeAt(end - 1) === 13) end -= 1;
  return line.slice(line.lastIndexOf('\r', end - 1) + 1, end);
}

/** Return a text in which every character that cannot be seen is written out, such as `⟨U+202E⟩`. */
export function visible(text: string): string {
  return text
    .replace(/\r(?!\n)/g, written)
    .replace(CONTROL, written)
    .replace(HIDDEN, written);
}

function written(character: string): string {
  return `⟨U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`;
}

/** Return what of a text is drawn, and whether something is left out. A cut never falls into a surrogate pair. */
export function cap(text: string, most = MOST_SHOWN): { shown: string; cut: boolean } {
  if (text.length <= most) return { shown: text, cut: false };
  const last = text.charCodeAt(most - 1);
  const end = last >= 0xd800 && last <= 0xdbff ? most - 1 : most;
  return { shown: text.slice(0, end), cut: true };
}

/** Return a number of tokens in a few characters, such as `12k`. */
export function tokens(count: number): string {
  if (count < 1000) return String(count);
  if (count < 10_000) return `${(count / 1000).toFixed(1).replace(/\.0$/, '')}k`;
  if (count < 1_000_000) return `${Math.round(count / 1000)}k`;
  return `${(count / 1_000_000).toFixed(1).replace(/\.0$/, '')}M`;
}

/** Return an amount of US dollars; what is less than a cent is not rounded to nothing. */
export function dollars(amount: number): string {
  if (amount === 0) return '$0';
  return amount < 0.01 ? '< $0.01' : `$${amount.toFixed(2)}`;
}

/** Return how long ago a time was, such as `5 min` or `3 days`. */
export function ago(at: string, now: number): string {
  const seconds = Math.max(0, (now - Date.parse(at)) / 1000);
  if (Number.isNaN(seconds)) return '';
  if (seconds < 60) return 'now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  const days = Math.floor(seconds / 86_400);
  return days === 1 ? '1 day' : `${days} days`;
}

/** Return a duration of seconds as a clock shows it. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')} min`;
}

/** Return a count with its noun: `1 file`, `2 files`. */
export function count(many: number, one: string, more = `${one}s`): string {
  return `${many} ${many === 1 ? one : more}`;
}

/** Return a file's name and the folder that it lies in, from a URI or a path. */
export function nameOf(uri: string): { name: string; folder: string } {
  const path = pathOf(uri);
  const slash = path.lastIndexOf('/');
  return { name: path.slice(slash + 1), folder: slash > 0 ? path.slice(0, slash) : '' };
}

/** Return a file's path within the folders of the workspace; the folder's own name comes first where there are several. */
export function pathIn(uri: string, folders: readonly { uri: string; name: string }[]): string {
  const whole = pathOf(uri);
  for (const folder of folders) {
    const root = `${pathOf(folder.uri).replace(/\/$/, '')}/`;
    if (whole.startsWith(root)) return (folders.length > 1 ? `${folder.name}/` : '') + whole.slice(root.length);
  }
  return whole;
}

function pathOf(uri: string): string {
  return /^[a-z][a-z0-9+.-]+:/i.test(uri) ? decoded(uri.replace(/^[^:]+:(?:\/\/[^/]*)?/, '')) : uri;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // Not percent-encoded after all: it is shown as it came.
  }
}

/** Return how many lines a unified diff adds and removes. */
export function diffSize(diff: string): { added: number; removed: number } {
  let added = 0;
  let removed = 0;
  let body = false;
  for (const line of diff.split('\n')) {
    if (line.startsWith('@@')) body = true;
    else if (line.startsWith('diff --git')) body = false;
    else if (body && line.startsWith('+')) added += 1;
    else if (body && line.startsWith('-')) removed += 1;
  }
  return { added, removed };
}
