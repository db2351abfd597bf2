// Text made harmless and short; and what the composer completes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { ago, cap, clock, diffSize, dollars, nameOf, pathIn, plain, tokens, visible } = await load('panel/text.ts');
const { commandOf, complete, tokenAt } = await load('panel/completion.ts');

test('terminal escapes and control characters are gone', () => {
  assert.equal(plain('\u001b[1;31mred\u001b[0m plain'), 'red plain');
  assert.equal(plain('\u001b]8;;https://evil.example\u0007link\u001b]8;;\u0007'), 'link');
  assert.equal(plain('\u001b]0;title\u001b\\text'), 'text');
  assert.equal(plain('10%\r50%\r100%\nnext\r\nlast'), '100%\nnext\nlast');
  assert.equal(plain('a\u0000b\u0008c\ttab'), 'abc\ttab');
  assert.equal(plain('\u001b'), '');
  assert.equal(plain('a\u202eb'), 'a⟨U+202E⟩b');
  assert.equal(plain('naïve 😀 text'), 'naïve 😀 text');
});

test('escapes without an end cost no more than their length', () => {
  const begun = performance.now();
  plain('\u001b]'.repeat(200_000));
  plain('\u001b[' + '1;'.repeat(300_000));
  plain('\r'.repeat(300_000) + 'x');
  assert.ok(performance.now() - begun < 1000);
});

test('what cannot be seen is written out', () => {
  assert.equal(visible('rm\u202e -rf\u200b x'), 'rm⟨U+202E⟩ -rf⟨U+200B⟩ x');
  assert.equal(visible('a\u001b[2Kb\rc'), 'a⟨U+001B⟩[2Kb⟨U+000D⟩c');
  assert.equal(visible('tag\u{e0041}'), 'tag⟨U+E0041⟩');
  assert.equal(visible('care ⚠️ 👩‍💻 x\ufe0f'), 'care ⚠️ 👩‍💻 x⟨U+FE0F⟩');
  assert.equal(visible('two\nlines\tand 😀'), 'two\nlines\tand 😀');
});

test('a cut never falls into a character', () => {
  assert.deepEqual(cap('ab😀', 3), { shown: 'ab', cut: true });
  assert.deepEqual(cap('ab😀', 4), { shown: 'ab😀', cut: false });
});

test('numbers and times in words', () => {
  assert.deepEqual([999, 1000, 4210, 19_593, 2_500_000].map(tokens), ['999', '1k', '4.2k', '20k', '2.5M']);
  assert.deepEqual([0, 0.004, 1.234].map(dollars), ['$0', '< $0.01', '$1.23']);
  const now = Date.parse('2026-01-10T12:00:00Z');
  assert.deepEqual(
    [
      '2026-01-10T11:59:40Z',
      '2026-01-10T11:50:00Z',
      '2026-01-10T07:00:00Z',
      '2026-01-09T07:00:00Z',
      '2026-01-01T07:00:00Z',
      'x',
    ].map((at) => ago(at, now)),
    ['now', '10 min', '5 h', '1 day', '9 days', ''],
  );
  assert.deepEqual([5, 75].map(clock), ['5 s', '1:15 min']);
});

test('names and paths of files', () => {
  const folders = [{ uri: 'file:///home/me/my%20project', name: 'my project' }];
  assert.equal(pathIn('file:///home/me/my%20project/src/a.py', folders), 'src/a.py');
  assert.equal(
    pathIn('file:///home/me/my%20project/src/a.py', [...folders, { uri: 'file:///x', name: 'x' }]),
    'my project/src/a.py',
  );
  assert.equal(pathIn('file:///elsewhere/a.py', folders), '/elsewhere/a.py');
  assert.deepEqual(nameOf('src/app/a.py'), { name: 'a.py', folder: 'src/app' });
  assert.deepEqual(nameOf('file:///a%2.py'), { name: 'a%2.py', folder: '' });
});

test('a diff is counted by its lines, not by its head', () => {
  const diff =
    'diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n+d\n--- not a head\ndiff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -0,0 +1 @@\n+z\n';
  assert.deepEqual(diffSize(diff), { added: 3, removed: 2 });
});

test('what is being typed', () => {
  assert.deepEqual(tokenAt('/mo', 3), { kind: 'command', query: 'mo', start: 0 });
  assert.equal(tokenAt('see /mo', 7), undefined);
  assert.deepEqual(tokenAt('look at @src/a', 14), { kind: 'file', query: 'src/a', start: 8 });
  assert.equal(tokenAt('me@example', 10), undefined);
  assert.deepEqual(complete('look at @sr now', { kind: 'file', query: 'sr', start: 8 }, 11, '@src/a.py'), {
    text: 'look at @src/a.py now',
    caret: 18,
  });
  assert.deepEqual(complete('@se', { kind: 'file', query: 'se', start: 0 }, 3, ''), { text: '', caret: 0 });
});

test('a whole text that is a command', () => {
  assert.deepEqual(commandOf('/rename  A new title '), { name: 'rename', argument: 'A new title' });
  assert.equal(commandOf('/etc/passwd is what?'), undefined);
  assert.equal(commandOf('use /new please'), undefined);
});
