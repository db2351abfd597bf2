// Markdown in top-level blocks, so that a streaming answer draws only its last one anew.
//
// Invariant: the blocks' sources, joined, are the text; and they are the same blocks, however the text was cut into
// pieces on its way. HTML in the text is never HTML in what is made of it.

import MarkdownIt from 'markdown-it';
import { readCode, readLink } from './links';

/** One top-level block: a paragraph, a list, a code block. `key` is its offset in the text. */
export interface Block {
  key: number;
  source: string;
}

export const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false, typographer: false });
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
markdown.validateLink = (target) => readLink(target) !== undefined;

// An image is never loaded: its text becomes a link to it.
markdown.renderer.rules['image'] = (tokens, index) => {
  const token = tokens[index];
  const target = String(token?.attrGet('src') ?? '');
  const text = markdown.utils.escapeHtml(token?.content || 'image');
  const link = readLink(target);
  return link === undefined
    ? text
    : `<a href="#" data-href="${markdown.utils.escapeHtml(target)}" title="${markdown.utils.escapeHtml(target)}">${text}</a>`;
};
markdown.renderer.rules['link_open'] = (tokens, index) => {
  const target = markdown.utils.escapeHtml(String(tokens[index]?.attrGet('href') ?? ''));
  return `<a href="#" data-href="${target}" title="${target}">`;
};
markdown.renderer.rules['code_inline'] = (tokens, index) => {
  const text = tokens[index]?.content ?? '';
  const code = `<code>${markdown.utils.escapeHtml(text)}</code>`;
  if (readCode(text) === undefined) return code;
  return `<a href="#" class="path" data-href="${markdown.utils.escapeHtml(text)}" title="Open ${markdown.utils.escapeHtml(text)}">${code}</a>`;
};
markdown.renderer.rules['fence'] = (tokens, index) => {
  const token = tokens[index];
  const language = /^[\w+#.-]{1,30}/.exec(token?.info.trim() ?? '')?.[0] ?? '';
  return `<pre data-language="${language}"><code>${markdown.utils.escapeHtml(token?.content ?? '')}</code></pre>\n`;
};
markdown.renderer.rules['code_block'] = (tokens, index) =>
  `<pre data-language=""><code>${markdown.utils.escapeHtml(tokens[index]?.content ?? '')}</code></pre>\n`;
markdown.renderer.rules['table_open'] = () => '<div class="table"><table>\n';
markdown.renderer.rules['table_close'] = () => '</table></div>\n';

/** Link definitions by name. */
export type References = NonNullable<NonNullable<Parameters<typeof markdown.parse>[1]>['references']>;

/** A text that grows at its end, in blocks. */
export class Blocks {
  private text = '';
  private settled: Block[] = [];
  /** Where the last block begins; what lies before it is settled. */
  private open = 0;
  current: readonly Block[] = [];

  /** Take the whole text as it is now, and return its blocks; those that did not change stay the same objects. */
  update(text: string): readonly Block[] {
    if (text === this.text) return this.current;
    if (!text.startsWith(this.text)) {
      this.settled = [];
      this.open = 0;
    }
    this.text = text;
    const tail = text.slice(this.open);
    const starts = topLevelStarts(tail);
    const found = starts.map((start, place) => ({
      key: this.open + start,
      source: tail.slice(start, starts[place + 1] ?? tail.length),
    }));
    // A line that is still being written may yet become part of what stands before it: `2` of a list's `2.`.
    const last = found.at(-1);
    const unfinished = last !== undefined && !last.source.includes('\n') ? 2 : 1;
    const settled = found.splice(0, Math.max(0, found.length - unfinished));
    this.settled.push(...settled);
    this.open = found[0]?.key ?? this.open;
    this.current = [...this.settled, ...found.map((block) => this.same(block))];
    return this.current;
  }

  private same(block: Block): Block {
    const before = this.current.find((one) => one.key === block.key);
    return before?.source === block.source ? before : block;
  }
}

/** Return where each top-level block begins; the first begins at 0, blank lines belong to what lies before. */
function topLevelStarts(text: string): number[] {
  if (!text) return [];
  const lines = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines.push(at + 1);
  const starts = new Set([0]);
  for (const token of markdown.parse(text, {})) {
    if (token.level === 0 && token.map && token.nesting >= 0) starts.add(lines[token.map[0]] ?? 0);
  }
  return [...starts].sort((a, b) => a - b);
}

/** Return the link definitions of a whole text (`[name]: target`), which any of its blocks may use. */
export function definitions(text: string): References {
  if (!/^ {0,3}\[[^\]]+\]:/m.test(text)) return {};
  const env: NonNullable<Parameters<typeof markdown.parse>[1]> = {};
  markdown.parse(text, env);
  return env.references ?? {};
}

/** Render one block to HTML that the sanitiser has still to see. */
export function toHtml(source: string, references: References): string {
  return markdown.render(source, { references: { ...references } });
}
