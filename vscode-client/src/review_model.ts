// What waits for a decision, as plain data: hunks in their order, where the pointer goes, what is equal, and what a
// file would become.
//
// Invariant: pure functions over what the server said; nothing here knows the editor, so all is tested without one.
// Lines and UTF-16 units are zero-based, as LSP has them.

import type { GateFile, GateInfo, GateReadResult, HunkRef, Range } from './protocol';

/** How a hunk can be shown: lines of a text, a whole file, bytes that are no text, a mode, a new name. */
export type HunkKind = 'text' | 'whole' | 'binary' | 'mode' | 'rename';

/** A hunk with everything around it that a surface needs. */
export interface Item {
  gateId: string;
  hunkId: string;
  digest: string;
  uri: string;
  oldUri?: string;
  operation: GateFile['operation'];
  kind: HunkKind;
  range: Range;
  newText: string;
  status: 'pending' | 'approved' | 'rejected' | 'stale';
  reason?: string;
  risk: GateInfo['risk'];
  /** Lines. */
  added: number;
  removed: number;
}

/** A place in a file, for finding what is next to it. */
export interface Place {
  uri: string;
  line: number;
}

const RISKS = ['low', 'medium', 'high'] as const;

/** Return the hunks of a gate, in the order of its files. */
export function itemsOf(view: GateReadResult): Item[] {
  return view.files.flatMap((file) =>
    file.hunks.map((hunk) => {
      const kind = kindOf(file, hunk.range, hunk.newText);
      const isText = kind === 'text' || kind === 'whole';
      const item: Item = {
        gateId: view.gate.gateId,
        hunkId: hunk.hunkId,
        digest: hunk.digest,
        uri: file.uri,
        operation: file.operation,
        kind,
        range: hunk.range,
        newText: hunk.newText,
        status: hunk.status,
        risk: hunk.risk ?? 'low',
        added: isText ? countLines(hunk.newText) : 0,
        removed: isText ? spannedLines(hunk.range) : 0,
      };
      if (file.oldUri !== undefined) item.oldUri = file.oldUri;
      if (hunk.reason !== undefined) item.reason = hunk.reason;
      return item;
    }),
  );
}

/** What is no text is told apart by the diff's own words, since a hunk says only what it puts there. */
function kindOf(file: GateFile, range: Range, newText: string): HunkKind {
  if (/^Binary file: /m.test(file.diff)) return 'binary';
  const isEmpty = range.start.line === range.end.line && range.start.character === range.end.character;
  if (isEmpty && !/[\r\n]/.test(newText)) {
    if (/^1\d{5}$/.test(newText) && new RegExp(`^new mode ${newText}$`, 'm').test(file.diff)) return 'mode';
    if (file.operation === 'rename' && newText !== '' && decodeURIComponent(file.uri).endsWith(`/${newText}`))
      return 'rename';
  }
  return file.operation === 'create' || file.operation === 'delete' ? 'whole' : 'text';
}

/** Return hunks of a status over all gates, by file, then by line. */
export function ordered(views: Iterable<GateReadResult>, statuses: readonly Item['status'][] = ['pending']): Item[] {
  return [...views]
    .flatMap(itemsOf)
    .filter((item) => statuses.includes(item.status))
    .sort(compareItems);
}

function compareItems(a: Item, b: Item): number {
  return (
    comparePaths(a.uri, b.uri) ||
    a.range.start.line - b.range.start.line ||
    order(a.gateId, b.gateId) ||
    order(a.hunkId, b.hunkId)
  );
}

/** Folders and files by name, as people read them; the same on every machine. */
export function comparePaths(a: string, b: string): number {
  return order(a.toLowerCase(), b.toLowerCase()) || order(a, b);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Return hunks by their gates, in the order in which they come. */
export function byGate(items: readonly Item[]): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) groups.set(item.gateId, [...(groups.get(item.gateId) ?? []), item]);
  return groups;
}

/** Gates as they should be looked at: the riskiest first, then the oldest. */
export function byRiskAndAge(gates: readonly GateInfo[]): GateInfo[] {
  return [...gates].sort((a, b) => RISKS.indexOf(b.risk) - RISKS.indexOf(a.risk) || order(a.createdAt, b.createdAt));
}

/**
 * Return the hunk after (or before) a place, going round at the end; undefined if nothing waits.
 *
 * A place in a file that is not in review counts by where its name would stand among the others.
 */
export function neighbour(items: readonly Item[], from: Place | undefined, step: 1 | -1): Item | undefined {
  if (items.length === 0) return undefined;
  if (from === undefined) return step === 1 ? items[0] : items[items.length - 1];
  const place = from;
  const isBehind = (item: Item): boolean =>
    (comparePaths(item.uri, place.uri) || item.range.start.line - place.line) * step > 0;
  const ahead = items.filter(isBehind);
  return step === 1 ? (ahead[0] ?? items[0]) : (ahead[ahead.length - 1] ?? items[items.length - 1]);
}

/** Return the hunk whose lines hold a line of the user's text; what only adds holds the line that it goes before. */
export function atLine(items: readonly Item[], uri: string, line: number): Item | undefined {
  return items.find((item) => item.uri === uri && item.range.start.line <= line && line <= lastLine(item.range));
}

/** Return the last line that a range touches. */
export function lastLine(range: Range): number {
  const { start, end } = range;
  return Math.max(start.line, end.character === 0 && end.line > start.line ? end.line - 1 : end.line);
}

/** Return what a text becomes with some hunks in it. Their ranges must lie in this text and not overlap. */
export function applyHunks(text: string, hunks: readonly { range: Range; newText: string }[]): string {
  const starts = lineStarts(text);
  const offset = (line: number, character: number): number =>
    line >= starts.length ? text.length : Math.min(starts[line]! + character, starts[line + 1] ?? text.length);
  const edits = hunks
    .map(({ range, newText }) => ({
      from: offset(range.start.line, range.start.character),
      to: offset(range.end.line, range.end.character),
      newText,
    }))
    .sort((a, b) => a.from - b.from || a.to - b.to);
  let at = 0;
  const parts: string[] = [];
  for (const edit of edits) {
    parts.push(text.slice(at, Math.max(at, edit.from)), edit.newText);
    at = Math.max(at, edit.to);
  }
  return parts.join('') + text.slice(at);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (const found of text.matchAll(/\r\n|\r|\n/g)) starts.push(found.index + found[0].length);
  return starts;
}

/** Return the lines [start, end) of a hunk in the text with all of the file's pending hunks in it. */
export function linesInProposal(items: readonly Item[], wanted: Item): { start: number; end: number } {
  const before = items.filter(
    (item) =>
      item.gateId === wanted.gateId &&
      item.uri === wanted.uri &&
      item.kind === 'text' &&
      item.status === 'pending' &&
      item.hunkId !== wanted.hunkId &&
      item.range.start.line <= wanted.range.start.line &&
      isBefore(item.range, wanted.range),
  );
  const start = before.reduce((line, item) => line + item.added - item.removed, wanted.range.start.line);
  return { start, end: start + wanted.added };
}

function isBefore(a: Range, b: Range): boolean {
  return a.end.line < b.start.line || (a.end.line === b.start.line && a.end.character <= b.start.character);
}

/** Return the pending hunk that a line of the proposal's side belongs to. */
export function atProposalLine(items: readonly Item[], gateId: string, uri: string, line: number): Item | undefined {
  const here = items.filter((item) => item.gateId === gateId && item.uri === uri && item.status === 'pending');
  if (here.length === 1 && here[0]!.kind !== 'text') return here[0];
  return here.find((item) => {
    const { start, end } = linesInProposal(here, item);
    return start <= line && line < Math.max(end, start + 1);
  });
}

/**
 * Return a gate as it will be once some of its hunks are decided: those that come after an approved one have moved.
 *
 * So the pointer can go on at once; the server's own word follows and replaces it.
 */
export function decided(
  view: GateReadResult,
  hunkIds: ReadonlySet<string>,
  status: 'approved' | 'rejected',
): GateReadResult {
  const files = view.files.map((file) => {
    const taken = itemsOf({ ...view, files: [file] }).filter(
      (item) => hunkIds.has(item.hunkId) && item.kind === 'text',
    );
    const hunks = file.hunks.map((hunk) => {
      if (hunkIds.has(hunk.hunkId)) return { ...hunk, status };
      if (status !== 'approved') return hunk;
      const by = taken
        .filter((item) => isBefore(item.range, hunk.range))
        .reduce((lines, item) => lines + item.added - item.removed, 0);
      return by === 0 ? hunk : { ...hunk, range: moved(hunk.range, by) };
    });
    return { ...file, hunks };
  });
  return { ...view, files };
}

function moved(range: Range, by: number): Range {
  const move = (at: { line: number; character: number }): { line: number; character: number } => ({
    line: Math.max(0, at.line + by),
    character: at.character,
  });
  return { start: move(range.start), end: move(range.end) };
}

/**
 * Return by what to decide hunks that were shown before, in the gate as it is now; undefined if one of them is no more
 * what was shown. A digest covers what a hunk does, so an equal one in the same file means the same.
 */
export function relocate(
  shown: GateReadResult,
  wanted: readonly HunkRef[],
  now: GateReadResult,
): HunkRef[] | undefined {
  const before = itemsOf(shown);
  const waiting = itemsOf(now).filter((item) => item.status === 'pending' || item.status === 'stale');
  const taken = new Set<string>();
  const found: HunkRef[] = [];
  for (const ref of wanted) {
    const old = before.find((item) => item.hunkId === ref.hunkId);
    const same = waiting
      .filter(
        (item) => item.digest === ref.digest && !taken.has(item.hunkId) && (old === undefined || item.uri === old.uri),
      )
      .sort((a, b) => nearness(a, ref, old) - nearness(b, ref, old))[0];
    if (same === undefined) return undefined;
    taken.add(same.hunkId);
    found.push({ hunkId: same.hunkId, digest: same.digest });
  }
  return found;
}

function nearness(item: Item, ref: HunkRef, old: Item | undefined): number {
  if (item.hunkId === ref.hunkId) return -1;
  return old === undefined ? 0 : Math.abs(item.range.start.line - old.range.start.line);
}

/** Equal changes in several files, or what is left of a proposal besides. */
export interface Equal {
  items: Item[];
  oldText: string;
}

/** Return the changes that are the same, old text and new, in at least `files` different files of a gate. */
export function equalChanges(view: GateReadResult, statuses: readonly Item['status'][], files = 3): Equal[] {
  const groups = new Map<string, Equal>();
  for (const file of view.files) {
    const old = oldLines(file.diff);
    for (const item of itemsOf({ ...view, files: [file] })) {
      if (item.kind !== 'text' || item.status !== 'pending' || !statuses.includes(item.status)) continue;
      const lines: string[] = [];
      for (let line = item.range.start.line; line < item.range.start.line + item.removed; line++) {
        const text = old.get(line);
        if (text !== undefined) lines.push(text);
      }
      if (lines.length !== item.removed) continue;
      const oldText = lines.join('\n');
      const key = JSON.stringify([oldText, item.newText.replace(/\r\n?/g, '\n')]);
      const group = groups.get(key) ?? { items: [], oldText };
      group.items.push(item);
      groups.set(key, group);
    }
  }
  return [...groups.values()].filter((group) => new Set(group.items.map((item) => item.uri)).size >= files);
}

/** Return the lines of the user's text that a unified diff shows, by their zero-based numbers. */
export function oldLines(diff: string): Map<number, string> {
  const lines = new Map<number, string>();
  let at: number | undefined;
  for (const line of diff.split('\n')) {
    const header = /^@@ -(\d+),(\d+) \+\d+,\d+ @@/.exec(line);
    if (header !== null) {
      at = Number(header[2]) === 0 ? Number(header[1]) : Number(header[1]) - 1;
    } else if (at !== undefined && (line.startsWith('-') || line.startsWith(' '))) {
      lines.set(at++, line.slice(1));
    }
  }
  return lines;
}

/** Return how many lines a text has; the last one counts without its end too. */
export function countLines(text: string): number {
  if (text === '') return 0;
  const breaks = text.match(/\r\n|\r|\n/g)?.length ?? 0;
  return /[\r\n]$/.test(text) ? breaks : breaks + 1;
}

function spannedLines({ start, end }: Range): number {
  return end.line + (end.character > 0 ? 1 : 0) - (start.line + (start.character > 0 ? 1 : 0));
}

/** Return a hunk's size as `−2 +3`, or in a word what it does where lines say nothing. */
export function sizeOf(item: Item): string {
  if (item.kind === 'binary') return 'binary';
  if (item.kind === 'mode') return item.newText === '100755' ? 'becomes executable' : `mode ${item.newText}`;
  if (item.kind === 'rename') return 'new name';
  return (
    [item.removed > 0 ? `−${item.removed}` : '', item.added > 0 ? `+${item.added}` : ''].filter(Boolean).join(' ') ||
    '±0'
  );
}

/** Return the first line of a text that says something, at most `most` characters, everything in it visible. */
export function firstLine(text: string, most = 80): string {
  const line = text.split(/\r\n|\r|\n/).find((one) => one.trim() !== '') ?? '';
  const shown = visible(line.trim());
  return shown.length > most ? `${[...shown].slice(0, most - 1).join('')}…` : shown;
}

/** Return a text with every character that shows as nothing, or turns others about, written as ‹U+202E›. */
export function visible(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\u2028\u2029\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\ufe00-\ufe0d]/gu,
    (one) => {
      if (one === '\t' || one === '\n') return one;
      return `‹U+${one.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}›`;
    },
  );
}

/** Return `1 file`, `2 files`. */
export function plural(count: number, one: string, several = `${one}s`): string {
  return `${count} ${count === 1 ? one : several}`;
}
