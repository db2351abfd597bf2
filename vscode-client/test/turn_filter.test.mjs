// Following one turn in its session's stream.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let follow;
before(async () => {
  follow = await load('turn_filter.ts');
});

let seq = 0;
const envelope = (update, at = ++seq) => ({ seq: at, at: '', sessionId: 's', update });
const running = (turnId) => envelope({ type: 'state', state: 'running', turnId });
const idle = (turnId, stopReason = 'end_turn') => envelope({ type: 'state', state: 'idle', turnId, stopReason });
const chunk = (text, messageId = 'm') => envelope({ type: 'messageChunk', messageId, text });

test('only the turn’s own updates are told, and its end ends it', () => {
  const filter = new follow.TurnFilter('two', 'queue');
  assert.deepEqual(filter.take(running('one')), {});
  assert.deepEqual(filter.take(chunk('of the other')), {});
  assert.deepEqual(filter.take(idle('one')), {});
  assert.deepEqual(filter.take(running('two')), {});
  assert.equal(filter.take(chunk('ours')).update.text, 'ours');
  assert.equal(filter.take(idle('two')).end.stopReason, 'end_turn');
});

test('what comes again after a restart is told once', () => {
  const filter = new follow.TurnFilter('t', 'start');
  filter.take(running('t'));
  const one = chunk('once');
  assert.ok(filter.take(one).update);
  assert.deepEqual(filter.take(one), {});
  assert.deepEqual(filter.take(running('t')), {});
  assert.ok(filter.take(chunk('more')).update);
});

test('a steering belongs to the turn that runs', () => {
  const filter = new follow.TurnFilter('t', 'steer');
  assert.ok(filter.take(chunk('x')).update);
  assert.ok(filter.take(idle('t')).end);
});

test('text that came in chunks is not told again as a whole, and messages are apart', () => {
  const prose = new follow.Prose();
  const whole = (messageId, text, role = 'assistant') => ({ type: 'message', messageId, text, role });
  assert.equal(prose.take(chunk('Hello', 'a').update), 'Hello');
  assert.equal(prose.take(whole('a', 'Hello there')), ' there');
  assert.equal(prose.take(whole('a', 'Hello there')), '');
  assert.equal(prose.take(whole('u', 'mine', 'user')), '');
  assert.equal(prose.take(whole('b', 'Next')), '\n\nNext');
});
