// What a link of a model's may be: a web address, a place in a file, or nothing.
//
// Invariant: whatever is not recognised is inert; no command, no other scheme, no address that hides a password or a
// control character.

export type Link = { kind: 'web'; url: string } | { kind: 'file'; path: string; line?: number; column?: number };

/** File endings that make inline code such as `setup.cfg` a link; with a folder in front any ending does. */
const ENDINGS = new Set(
  (
    'bat c cc cfg clj cmake conf cpp cs css csv dart diff ejs el env erl ex exs fs go gradle graphql h hcl hpp hs html ini ipynb java ' +
    'jl js json json5 jsonc jsx kt kts less lock lua m md mdx mjs cjs ml mm mts nim nix patch php pl plist po proto ps1 py pyi r rb ' +
    'rs rst sass scala scss sh sql svelte svg swift tex tf toml ts tsx txt vim vue xml yaml yml zig zsh'
  ).split(' '),
);
const PLACE = /^(?<path>[^:#?]+)(?:[:#]L?(?<line>\d{1,7})(?:(?::|C)(?<column>\d{1,5}))?(?:-L?\d{1,7}(?:C\d+)?)?)?$/;

/** Return what a link's target means, or undefined for one that leads nowhere. */
export function readLink(target: string): Link | undefined {
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f-\u009f]/.test(target)) return undefined;
  if (/^https?:\/\//i.test(target)) {
    try {
      const url = new URL(target);
      return url.username || url.password || !url.hostname ? undefined : { kind: 'web', url: url.href };
    } catch {
      return undefined;
    }
  }
  const local = target.replace(/^file:\/\/(?=\/)/i, '');
  if (/^[a-z][a-z0-9+.-]*:(?!\d)/i.test(local) || local.startsWith('//') || local.startsWith('#')) return undefined;
  let decoded = local;
  try {
    decoded = decodeURIComponent(local);
  } catch {
    return undefined;
  }
  return place(decoded);
}

/** Return the place that a piece of inline code names, if it looks like a file's path. */
export function readCode(code: string): Link | undefined {
  if (code.length > 300 || !/^[\w@.][\w@.+/~-]*(?:(?::\d+){1,2}(?:-\d+)?|#L\d+(?:-L?\d+)?)?$/.test(code))
    return undefined;
  const found = place(code);
  if (found?.kind !== 'file') return undefined;
  const name = found.path.slice(found.path.lastIndexOf('/') + 1);
  const dot = name.lastIndexOf('.');
  if (dot <= 0 || /^\d+$/.test(name.slice(dot + 1))) return undefined;
  return found.path.includes('/') || ENDINGS.has(name.slice(dot + 1).toLowerCase()) ? found : undefined;
}

function place(text: string): Link | undefined {
  const found = PLACE.exec(text.replace(/^\.\//, ''));
  const path = found?.groups?.['path'];
  if (!path || path.includes('\\') || path.split('/').includes('..')) return undefined;
  const line = found?.groups?.['line'];
  const column = found?.groups?.['column'];
  return { kind: 'file', path, ...(line ? { line: Number(line) } : {}), ...(column ? { column: Number(column) } : {}) };
}
