// What waits, in which order, where the pointer goes, and what a file would become.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const model = await load('review_model');
const card = await load('trust_card');

const range = (a, b, from = 0, to = 0) => ({ start: { line: a, character: from }, end: { line: b, character: to } });
const hunk = (hunkId, where, newText, more = {}) => ({ hunkId, digest: `d-${hunkId}`, range: where, newText, status: 'pending', ...more });
const file = (uri, hunks, more = {}) => ({ uri, operation: 'modify', diff: '', hunks, ...more });
const gate = (gateId, more = {}) => ({
  gateId, state: 'open', subject: { type: 'changes' }, title: gateId, risk: 'low', options: [], digest: 'g', createdAt: '2026-01-01', default: 'reject', ...more,
});
const view = (gateId, files) => ({ gate: gate(gateId), files, evidence: [] });

test('hunks of all gates are ordered by file, then by line', () => {
  const views = [
    view('g1', [file('file:///w/b.py', [hunk('2', range(9, 10), 'x\n'), hunk('1', range(2, 3), 'x\n')])]),
    view('g2', [file('file:///w/A.py', [hunk('0', range(5, 5), 'x\n')]), file('file:///w/c.py', [hunk('3', range(0, 1), 'x\n', { status: 'stale' })])]),
  ];
  assert.deepEqual(model.ordered(views).map((item) => item.hunkId), ['0', '1', '2']);
  assert.deepEqual(model.ordered(views, ['pending', 'stale']).map((item) => item.hunkId), ['0', '1', '2', '3']);
});

test('risky gates come first, then old ones', () => {
  const gates = [gate('a', { createdAt: '3' }), gate('b', { createdAt: '1' }), gate('c', { createdAt: '2', risk: 'high' }), gate('d', { risk: 'medium' })];
  assert.deepEqual(model.byRiskAndAge(gates).map((one) => one.gateId), ['c', 'd', 'b', 'a']);
});

test('the pointer goes on from a place, over files, and round', () => {
  const items = model.ordered([view('g', [
    file('file:///w/a.py', [hunk('1', range(1, 2), ''), hunk('2', range(8, 9), '')]), file('file:///w/c.py', [hunk('3', range(0, 1), '')]),
  ])]);
  const go = (uri, line, step) => model.neighbour(items, { uri, line }, step).hunkId;
  assert.equal(model.neighbour(items, undefined, 1).hunkId, '1');
  assert.equal(model.neighbour(items, undefined, -1).hunkId, '3');
  assert.equal(go('file:///w/a.py', 0, 1), '1');
  assert.equal(go('file:///w/a.py', 1, 1), '2');
  assert.equal(go('file:///w/a.py', 8, 1), '3');
  assert.equal(go('file:///w/b.py', 4, 1), '3');
  assert.equal(go('file:///w/b.py', 4, -1), '2');
  assert.equal(go('file:///w/c.py', 0, 1), '1');
  assert.equal(go('file:///w/a.py', 1, -1), '3');
  assert.equal(model.neighbour([], undefined, 1), undefined);
});

test('hunks are applied to a text exactly, whatever its line ends and characters', () => {
  const apply = model.applyHunks;
  assert.equal(apply('a\nb\nc\n', [{ range: range(1, 2), newText: 'B\nB2\n' }]), 'a\nB\nB2\nc\n');
  assert.equal(apply('a\r\nb\r\nc\r\n', [{ range: range(2, 3), newText: '' }, { range: range(0, 1), newText: 'A\r\n' }]), 'A\r\nb\r\n');
  assert.equal(apply('a\rb\rc', [{ range: range(1, 2), newText: 'X\r' }]), 'a\rX\rc');
  assert.equal(apply('🙂🙂\nb', [{ range: range(1, 1, 0, 1), newText: 'c' }]), '🙂🙂\nc');
  assert.equal(apply('🙂x', [{ range: range(0, 0, 2, 3), newText: 'y' }]), '🙂y');
  assert.equal(apply('', [{ range: range(0, 0), newText: 'new\n' }]), 'new\n');
  assert.equal(apply('a', [{ range: range(0, 0, 1, 1), newText: '\nb' }]), 'a\nb');
  assert.equal(apply('a\n', [{ range: range(1, 1), newText: 'b\n' }, { range: range(0, 0), newText: '0\n' }]), '0\na\nb\n');
  assert.equal(apply('a\n', [{ range: range(7, 9), newText: 'b\n' }]), 'a\nb\n');
});

test('an approved hunk moves those behind it, a rejected one moves nothing', () => {
  const shown = view('g', [file('file:///w/a', [hunk('1', range(1, 2), 'x\ny\nz\n'), hunk('2', range(5, 6), ''), hunk('0', range(0, 0), 'top\n')])]);
  const lines = (after) => after.files[0].hunks.map((one) => [one.hunkId, one.status, one.range.start.line]);
  assert.deepEqual(lines(model.decided(shown, new Set(['1']), 'approved')), [['1', 'approved', 1], ['2', 'pending', 7], ['0', 'pending', 0]]);
  assert.deepEqual(lines(model.decided(shown, new Set(['1', '0']), 'approved')), [['1', 'approved', 1], ['2', 'pending', 8], ['0', 'approved', 0]]);
  assert.deepEqual(lines(model.decided(shown, new Set(['1']), 'rejected')), [['1', 'rejected', 1], ['2', 'pending', 5], ['0', 'pending', 0]]);
});

test('a line of the proposal belongs to its hunk', () => {
  const items = model.ordered([view('g', [file('file:///w/a', [hunk('1', range(1, 2), 'x\ny\nz\n'), hunk('2', range(5, 7), ''), hunk('3', range(9, 10), 'n\n')])])]);
  assert.deepEqual(items.map((item) => model.linesInProposal(items, item).start), [1, 7, 9]);
  const at = (line) => model.atProposalLine(items, 'g', 'file:///w/a', line)?.hunkId;
  assert.deepEqual([0, 1, 3, 4, 7, 9, 10].map(at), [undefined, '1', '1', undefined, '2', '3', undefined]);
  assert.equal(model.atLine(items, 'file:///w/a', 6)?.hunkId, '2');
  assert.equal(model.atLine(items, 'file:///w/a', 7), undefined);
});

test('a decision is repeated only on what does the same', () => {
  const shown = view('g', [file('file:///w/a', [hunk('1', range(1, 2), ''), hunk('2', range(5, 6), '', { digest: 'same' }), hunk('3', range(9, 10), '', { digest: 'same' })])]);
  const now = (...hunks) => view('g', [file('file:///w/a', hunks)]);
  const wanted = [{ hunkId: '1', digest: 'd-1' }];
  assert.deepEqual(model.relocate(shown, wanted, now(hunk('1', range(4, 5), ''))), wanted);
  assert.deepEqual(model.relocate(shown, wanted, now(hunk('9', range(4, 5), '', { digest: 'd-1' }))), [{ hunkId: '9', digest: 'd-1' }]);
  assert.equal(model.relocate(shown, wanted, now(hunk('1', range(1, 2), '', { digest: 'other' }))), undefined);
  assert.equal(model.relocate(shown, wanted, now(hunk('1', range(1, 2), '', { status: 'rejected' }))), undefined);
  assert.equal(model.relocate(shown, wanted, view('g', [file('file:///w/b', [hunk('1', range(1, 2), '')])])), undefined);
  const two = [{ hunkId: '2', digest: 'same' }, { hunkId: '3', digest: 'same' }];
  const found = model.relocate(shown, two, now(hunk('x', range(5, 6), '', { digest: 'same' }), hunk('y', range(9, 10), '', { digest: 'same' })));
  assert.deepEqual(found.map((ref) => ref.hunkId), ['x', 'y']);
  assert.equal(model.relocate(shown, two, now(hunk('x', range(5, 6), '', { digest: 'same' }))), undefined);
});

test('equal changes in several files are found by old text and new', () => {
  const diff = (at) => `--- a/x\n+++ b/x\n@@ -${at + 1},2 +${at + 1},2 @@\n keep\n-import old\n+import new\n`;
  const one = (name, at, old = 'import old') =>
    file(`file:///w/${name}`, [hunk(name, range(at + 1, at + 2), 'import new\n')], { diff: diff(at).replace('import old', old) });
  const found = (files) => model.equalChanges(view('g', files), ['pending']).map((group) => group.items.map((item) => item.hunkId));
  assert.deepEqual(found([one('a', 0), one('b', 4), one('c', 9)]), [['a', 'b', 'c']]);
  assert.deepEqual(found([one('a', 0), one('b', 4, 'import other'), one('c', 9)]), []);
  assert.deepEqual(found([one('a', 0), one('b', 4)]), []);
});

test('what is no text is known by the words of its diff', () => {
  const kind = (one) => model.itemsOf(view('g', [one]))[0].kind;
  assert.equal(kind(file('file:///w/a', [hunk('1', range(0, 3), '')], { diff: 'Binary file: 3 bytes becomes nothing\n' })), 'binary');
  assert.equal(kind(file('file:///w/a', [hunk('1', range(0, 0), '100755')], { diff: 'old mode 100644\nnew mode 100755\n' })), 'mode');
  assert.equal(kind(file('file:///w/a', [hunk('1', range(0, 0), '100755\n')])), 'text');
  assert.equal(kind(file('file:///w/d/n.py', [hunk('1', range(0, 0), 'd/n.py')], { operation: 'rename' })), 'rename');
  assert.equal(kind(file('file:///w/a', [hunk('1', range(0, 0), 'x\n')], { operation: 'create' })), 'whole');
});

test('sizes, first lines and hidden characters are said plainly', () => {
  const item = (where, text) => model.itemsOf(view('g', [file('file:///w/a', [hunk('1', where, text)])]))[0];
  assert.equal(model.sizeOf(item(range(1, 3), 'a\nb\nc\n')), '−2 +3');
  assert.equal(model.sizeOf(item(range(1, 1), 'a')), '+1');
  assert.equal(model.sizeOf(item(range(3, 3, 0, 4), 'last')), '−1 +1');
  assert.equal(model.firstLine('\n\n  x = 1\n'), 'x = 1');
  assert.equal(model.firstLine('é'.repeat(90), 10), `${'é'.repeat(9)}…`);
  assert.equal(model.visible('a\u202eb\u200bc\r'), 'a‹U+202E›b‹U+200B›c‹U+000D›');
});

test('nothing leaves its place in a card', () => {
  assert.equal(card.fenced('a\n````\nb'), '`````\na\n````\nb\n`````');
  assert.equal(card.code('a `b`'), '`` a `b` ``');
  assert.ok(!/(?<!\\)[[\]()<>$`]/.test(card.escape('[x](command:evil) <img src=x> $(trash) `a`')));
  const item = model.itemsOf(view('g', [file('file:///w/a', [hunk('1', range(0, 1), '```\n[x](command:evil)\n')])]))[0];
  assert.match(card.hunkCard(item, 'python'), /````python\n```\n\[x\]/);
});

test('a card says what ran, or that nothing did', () => {
  const base = { ...view('g', []), card: { request: 'make it\nbetter', files: 2, added: 5, removed: 1, isolation: 'process', flags: [{ kind: 'ci', text: 'Changes .github/workflows/ci.yml.' }] } };
  assert.match(card.proposalCard(base), /Not tested/);
  assert.match(card.proposalCard(base), /\*\*CI:\*\* Changes/);
  assert.match(card.proposalCard({ ...base, evidence: [{ check: 'shell', command: 'pytest', exitCode: 1 }] }), /`pytest` — exit 1/);
});

test('the card of a command shows all of it', () => {
  const asked = gate('c', {
    subject: { type: 'command', command: 'rm -rf x', shown: 'rm -rf x', folder: '', network: true, isolation: 'none' },
    options: [{ optionId: 'always', name: 'Always', kind: 'allow_always', rule: 'run exactly: rm -rf x' }],
  });
  assert.match(card.commandCard(asked), /```sh\nrm -rf x\n```/);
  assert.match(card.commandCard(asked), /with network, no jail/);
  assert.match(card.commandText(asked), /# "Always" would store the rule:\n#   run exactly: rm -rf x\n/);
});
