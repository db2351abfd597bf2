// What the panel shows of a session follows from its updates alone, however they were cut into batches and pages.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { EMPTY, Log, reduce, withQueue } = await load('panel/state.ts');
const { Stream } = await load('stream.ts');

let seq = 0;
const at = (number, update) => ({
  seq: number,
  at: new Date(1_700_000_000_000 + number * 1000).toISOString(),
  sessionId: 's',
  update,
});
const stream = (...updates) => updates.map((update, place) => at(place + 1, update));
const user = (messageId, text, more = {}) => ({ type: 'message', messageId, role: 'user', text, ...more });
const answer = (messageId, text, more = {}) => ({ type: 'message', messageId, role: 'assistant', text, ...more });
const chunk = (messageId, text) => ({ type: 'messageChunk', messageId, text });
const thought = (messageId, text) => ({ type: 'thought', messageId, text });
const call = (toolCallId, status, more = {}) => ({
  type: 'toolCall',
  toolCallId,
  title: `Do ${toolCallId}`,
  kind: 'read',
  status,
  locations: [],
  ...more,
});
const running = (turnId) => ({ type: 'state', state: 'running', turnId });
const idle = (turnId, stopReason = 'end_turn') => ({ type: 'state', state: 'idle', turnId, stopReason });
const queue = (...ids) => ({
  type: 'queue',
  entries: ids.map((messageId) => ({ messageId, text: messageId, delivery: 'queue' })),
});
const gate = (gateId, state, more = {}) => ({
  type: 'gate',
  gate: { gateId, state, subject: { type: 'changes' }, title: gateId, options: [], ...more },
});
const kinds = (view) => view.items.map((item) => item.kind);

const TURN = stream(
  user('u1', 'Do it.'),
  running('t1'),
  thought('a1', 'Hm'),
  thought('a1', 'm.'),
  chunk('a1', 'I '),
  chunk('a1', 'look.'),
  answer('a1', 'I look.'),
  call('c1', 'running'),
  call('c1', 'completed', { output: 'x' }),
  { type: 'plan', entries: [{ text: 'Look', status: 'completed' }] },
  { type: 'changes', files: [{ uri: 'file:///a', added: 1, removed: 0 }] },
  chunk('a2', 'Done'),
  chunk('a2', '.'),
  answer('a2', 'Done.'),
  gate('g1', 'open'),
  idle('t1'),
);

test('a turn from its first word to its gate', () => {
  const view = reduce(EMPTY, TURN);
  assert.deepEqual(kinds(view), ['user', 'thought', 'assistant', 'tool', 'assistant', 'gate']);
  assert.equal(view.items[1].text, 'Hmm.');
  assert.equal(view.items[1].live, false);
  assert.deepEqual([view.items[2].text, view.items[2].status], ['I look.', 'done']);
  assert.deepEqual([view.items[3].call.status, view.items[3].call.output], ['completed', 'x']);
  assert.equal(view.running, false);
  assert.equal(view.plan.length, 1);
  assert.deepEqual([view.first, view.last], [1, TURN.length]);
});

test('batches, doubles and replays make no difference', () => {
  const whole = reduce(EMPTY, TURN);
  for (const size of [1, 2, 3, 5]) {
    let view = EMPTY;
    for (let start = 0; start < TURN.length; start += size) {
      view = reduce(view, TURN.slice(Math.max(0, start - 2), start + size));
      view = reduce(view, TURN.slice(0, start));
    }
    assert.deepEqual(view, whole);
  }
  assert.deepEqual(reduce(whole, TURN), whole);
});

test('what did not change stays the same object', () => {
  const before = reduce(EMPTY, TURN.slice(0, 11));
  const after = reduce(before, TURN.slice(11, 12));
  for (const place of [0, 1, 2, 3]) assert.equal(after.items[place], before.items[place]);
  assert.equal(before.items.length, 4, 'the view before is untouched');
});

test('pages put in front give what one page would have given', () => {
  for (let seam = 1; seam < TURN.length; seam++) {
    const log = new Log();
    log.append(TURN.slice(seam));
    log.know(false, []);
    log.prepend(TURN.slice(0, seam));
    const { items, first, last, running: runs, plan } = reduce(EMPTY, TURN);
    assert.deepEqual(
      {
        items: log.view.items,
        first: log.view.first,
        last: log.view.last,
        running: log.view.running,
        plan: log.view.plan,
      },
      { items, first, last, running: runs, plan },
      `seam ${seam}`,
    );
  }
});

test('what is queued stands where it was taken up', () => {
  const updates = stream(
    user('u1', 'one'),
    queue(),
    running('t1'),
    chunk('a1', 'Hi'),
    user('u2', 'two'),
    queue('u2'),
    user('u3', 'three'),
    queue('u2', 'u3'),
    answer('a1', 'Hi there'),
    idle('t1'),
    running('t2'),
    queue('u3'),
    chunk('a2', 'Ho'),
  );
  const view = reduce(EMPTY, updates);
  assert.deepEqual(
    view.items.map((item) => item.messageId),
    ['u1', 'a1', 'u3', 'u2', 'a2'],
  );
  assert.deepEqual(
    view.queue.map((entry) => entry.messageId),
    ['u3'],
    'it is shown in the queue, not in the timeline',
  );
});

test('a queued message can be changed and taken away', () => {
  const view = reduce(
    EMPTY,
    stream(
      user('u1', 'one'),
      running('t1'),
      user('u2', 'two'),
      queue('u2'),
      user('u2', 'two, better'),
      queue('u2'),
      user('u3', 'x'),
      queue('u2', 'u3'),
      user('u3', '', { status: 'removed' }),
      queue('u2'),
      idle('t1'),
      running('t2'),
      queue(),
    ),
  );
  assert.deepEqual(
    view.items.map((item) => item.text),
    ['one', 'two, better'],
  );
});

test('an interrupted message keeps what was written, and the next one is another', () => {
  const view = reduce(
    EMPTY,
    stream(
      user('u1', 'one'),
      running('t1'),
      chunk('a1', 'Half a'),
      answer('a1', 'Half a', { status: 'interrupted' }),
      running('t1'),
      chunk('a2', 'Whole'),
      answer('a2', 'Whole.'),
      idle('t1'),
    ),
  );
  assert.deepEqual(
    view.items.slice(1).map((item) => [item.text, item.status]),
    [
      ['Half a', 'interrupted'],
      ['Whole.', 'done'],
    ],
  );
});

test('a turn that goes on keeps its plan, another one does not', () => {
  const plan = { type: 'plan', entries: [{ text: 'x', status: 'pending' }] };
  assert.equal(reduce(EMPTY, stream(running('t1'), plan, running('t1'))).plan.length, 1);
  assert.equal(reduce(EMPTY, stream(running('t1'), plan, idle('t1'), running('t2'))).plan.length, 0);
});

test('what still ran when the turn ended has stopped', () => {
  const view = reduce(EMPTY, stream(running('t1'), call('c1', 'running'), chunk('a1', 'x'), idle('t1', 'cancelled')));
  assert.equal(view.items[0].stopped, true);
  assert.equal(view.items[1].status, 'done');
  assert.deepEqual(view.items[2], { kind: 'stop', key: 'stop:4', reason: 'cancelled' });
});

test('a proposal that grows with a later turn is shown after it; a decision leaves it where it is', () => {
  const first = [
    user('u1', 'one'),
    running('t1'),
    gate('g1', 'open'),
    idle('t1'),
    user('u2', 'two'),
    running('t2'),
    answer('a2', 'x'),
  ];
  const grown = reduce(EMPTY, stream(...first, gate('g1', 'open', { digest: '2' }), idle('t2')));
  assert.deepEqual(kinds(grown), ['user', 'user', 'assistant', 'gate']);
  const resolved = reduce(EMPTY, stream(...first, gate('g1', 'resolved', { resolvedBy: 'approve' })));
  assert.deepEqual(kinds(resolved), ['user', 'gate', 'user', 'assistant']);
});

test('what the first page does not tell is known from elsewhere, and only that', () => {
  const log = new Log();
  log.append([at(50, chunk('a1', 'x'))]);
  log.know(true, [{ messageId: 'u9', text: 'later', delivery: 'queue' }]);
  assert.equal(log.view.running, true);
  assert.equal(log.view.queue.length, 1);
  const told = new Log();
  told.append([at(50, idle('t1'))]);
  told.know(true, []);
  assert.equal(told.view.running, false);
});

test('leaving the queue by what the server says when asked', () => {
  const view = withQueue(reduce(EMPTY, stream(user('u1', 'a'), queue('u1'), answer('x', 'y'))), []);
  assert.deepEqual(kinds(view), ['assistant', 'user']);
});

test('a stream takes each update once and asks for what is missing', () => {
  const taken = new Stream(3);
  assert.deepEqual(
    [2, 3, 4, 4, 6, 5, 6].map((number) => taken.take(at(number, idle('t')))),
    ['drop', 'drop', 'take', 'drop', 'gap', 'take', 'take'],
  );
});

test('ten thousand updates are derived in a blink', () => {
  const many = [];
  seq = 0;
  while (seq < 10_000) {
    many.push(at(++seq, user(`u${seq}`, 'Go on.')));
    for (let piece = 0; piece < 20; piece++) many.push(at(++seq, chunk(`a${seq - piece}`, 'some words ')));
    many.push(at(++seq, call(`c${seq}`, 'completed')));
  }
  const begun = performance.now();
  reduce(EMPTY, many);
  assert.ok(performance.now() - begun < 500);
});
