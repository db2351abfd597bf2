// From a block of Markdown to what is put into the page: rendered, sanitised, highlighted.
//
// Invariant: nothing reaches the page but what the sanitiser let through, text nodes, and elements made here. Links
// carry no address that the browser could follow; a click asks the host.

import DOMPurify from 'dompurify';
import { toHtml, type References } from './blocks';
import { highlight } from './highlight';

const ALLOWED = {
  ALLOWED_TAGS: [
    'a',
    'blockquote',
    'br',
    'code',
    'del',
    'div',
    'em',
    'h1',
    'h2',
    'h3',
    'h4',
    'h5',
    'h6',
    'hr',
    'li',
    'ol',
    'p',
    'pre',
    's',
    'strong',
    'table',
    'tbody',
    'td',
    'th',
    'thead',
    'tr',
    'ul',
  ],
  ALLOWED_ATTR: ['href', 'title', 'class', 'start', 'data-href', 'data-language'],
  ALLOWED_URI_REGEXP: /^#$/,
  // These are read here and by the host, never by the browser.
  ADD_URI_SAFE_ATTR: ['data-href', 'data-language', 'start'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** Render one block into elements; code in it is highlighted unless it is still being written and long. */
export function render(source: string, references: References, streaming: boolean): DocumentFragment {
  const fragment = DOMPurify.sanitize(toHtml(source, references), { ...ALLOWED, RETURN_DOM_FRAGMENT: true });
  for (const table of fragment.querySelectorAll('.table')) table.setAttribute('tabindex', '0');
  for (const pre of fragment.querySelectorAll('pre')) dress(pre, streaming);
  return fragment;
}

function dress(pre: HTMLElement, streaming: boolean): void {
  const code = pre.querySelector('code');
  if (code === null) return;
  const language = pre.dataset['language'] ?? '';
  const text = code.textContent ?? '';
  const coloured = highlight(text, language, streaming ? 8_000 : 60_000);
  if (coloured !== undefined)
    code.replaceChildren(
      DOMPurify.sanitize(coloured, { ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'], RETURN_DOM_FRAGMENT: true }),
    );
  pre.tabIndex = 0;
  const box = document.createElement('div');
  box.className = 'code';
  const head = document.createElement('div');
  head.className = 'code-head';
  const name = document.createElement('span');
  name.textContent = language;
  const copy = document.createElement('button');
  copy.type = 'button';
  copy.className = 'icon';
  copy.title = 'Copy';
  copy.setAttribute('aria-label', language ? `Copy this ${language} code` : 'Copy this code');
  copy.dataset['copy'] = '';
  copy.innerHTML = '<i class="codicon codicon-copy" aria-hidden="true"></i>';
  head.append(name, copy);
  pre.replaceWith(box);
  box.append(head, pre);
}
