// Markdown in blocks: the same however it arrives, and harmless whatever it says.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { Blocks, definitions, toHtml } = await load('panel/blocks.ts');
const { readLink, readCode } = await load('panel/links.ts');

const TEXT = `# Title

A paragraph
over two lines with \`src/a.py:3\`.

1. one

2. two
   - inner

| a | b |
|---|---|
| 1 | 2 |

\`\`\`python
def f():

    return 1
\`\`\`

Last
----
> quoted
lazy

- a

  b
- c

***
end`;

test('blocks are the same however the text is cut', () => {
  const whole = new Blocks().update(TEXT).map((block) => block.source);
  assert.equal(whole.join(''), TEXT);
  assert.equal(whole.length, 10);
  for (const size of [1, 2, 3, 7, 20, 100]) {
    const blocks = new Blocks();
    let last;
    for (let end = size; end < TEXT.length + size; end += size) last = blocks.update(TEXT.slice(0, end));
    assert.deepEqual(
      last.map((block) => block.source),
      whole,
      `pieces of ${size}`,
    );
  }
});

test('what is settled stays the same object', () => {
  const blocks = new Blocks();
  const before = blocks.update('one\n\ntwo\n\nthr');
  const after = blocks.update('one\n\ntwo\n\nthree');
  assert.equal(after[0], before[0]);
  assert.equal(after[1], before[1]);
  assert.equal(after[2].source, 'three');
});

test('a text that is replaced is read anew', () => {
  const blocks = new Blocks();
  blocks.update('secret text\n\nmore');
  assert.deepEqual(
    blocks.update('redacted\n\nmore').map((block) => block.source),
    ['redacted\n\n', 'more'],
  );
});

test('definitions of links reach other blocks', () => {
  const text = 'See [the site][x].\n\n[x]: https://example.org/a\n';
  assert.match(toHtml('See [the site][x].\n', definitions(text)), /data-href="https:\/\/example.org\/a"/);
});

test('HTML, scripts and commands are inert', () => {
  assert.doesNotMatch(toHtml('<img src=x onerror=alert(1)> <script>alert(1)</script>', {}), /<img|<script/);
  for (const target of [
    'command:workbench.action.quit',
    'javascript:alert(1)',
    'vbscript:x',
    'data:text/html,x',
    'vscode://x/y',
    'JaVaScRiPt:x',
  ]) {
    assert.equal(readLink(target), undefined, target);
    assert.doesNotMatch(toHtml(`[x](${target})`, {}), /<a /, target);
    assert.doesNotMatch(toHtml(`<${target}>`, {}), /<a /, target);
  }
});

test('an image is a link with its text, and is never loaded', () => {
  assert.match(
    toHtml('![a cat](https://example.org/cat.png)', {}),
    /<a href="#" data-href="https:\/\/example.org\/cat.png"[^>]*>a cat<\/a>/,
  );
  assert.doesNotMatch(toHtml('![x](data:image/svg+xml,<svg/>)', {}), /<img|<a /);
});

test('links to places in files', () => {
  assert.deepEqual(readLink('src/a.py#L10'), { kind: 'file', path: 'src/a.py', line: 10 });
  assert.deepEqual(readLink('src/a.py#L10-L20'), { kind: 'file', path: 'src/a.py', line: 10 });
  assert.deepEqual(readLink('./src/a.py:7:3'), { kind: 'file', path: 'src/a.py', line: 7, column: 3 });
  assert.deepEqual(readLink('my%20file.md'), { kind: 'file', path: 'my file.md' });
  assert.deepEqual(readLink('file:///home/me/a.py'), { kind: 'file', path: '/home/me/a.py' });
  assert.deepEqual(readLink('Makefile'), { kind: 'file', path: 'Makefile' });
  for (const target of [
    '../secret',
    'a/../../b',
    '//host/share',
    '#top',
    'C:\\a',
    'a\u0000b',
    'https://user:word@host/',
  ]) {
    assert.equal(readLink(target), undefined, target);
  }
});

test('inline code that names a file is a link, other code is not', () => {
  assert.deepEqual(readCode('src/a.py:12'), { kind: 'file', path: 'src/a.py', line: 12 });
  assert.deepEqual(readCode('setup.cfg'), { kind: 'file', path: 'setup.cfg' });
  for (const code of ['os.path', 'x = 1', 'a.b()', '1.5', 'and/or', 'v1.2.3', 'pytest -q', '/', '']) {
    assert.equal(readCode(code), undefined, code);
  }
});
