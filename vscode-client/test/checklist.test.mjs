// The checklist: each state of things has one plain sentence and at most one button.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let checklist;
before(async () => {
  ({ checklist } = await load('checklist.ts'));
});

const STATUS = {
  version: '0.1.0',
  generation: 0,
  model: 'm',
  isolation: 'process',
  sessions: 0,
  runs: 0,
  gatesPending: 0,
  spend: { inputTokens: 0, cachedTokens: 0, outputTokens: 0 },
  trusted: true,
  folders: [],
};
const FACTS = { folders: ['a'], trusted: true, server: { kind: 'running' }, status: STATUS, isOwn: true };

function line(id, facts) {
  return checklist({ ...FACTS, ...facts }).find((one) => one.id === id);
}

test('everything is well', () => {
  const lines = checklist(FACTS);
  assert.deepEqual(
    lines.map((one) => one.id),
    ['trust', 'server', 'model', 'isolation'],
  );
  assert.ok(lines.every((one) => one.state === 'ok'));
});

test('without a folder or trust the first line says so, and names the folders', () => {
  assert.equal(line('trust', { folders: [] }).action.id, 'openFolder');
  const untrusted = line('trust', { trusted: false, folders: ['a', 'b'] });
  assert.equal(untrusted.action.id, 'trust');
  assert.match(untrusted.detail, /^a, b is not trusted/);
});

test('a server that is missing has the button that helps', () => {
  const server = { kind: 'missing', reason: 'r' };
  const button = (trouble) =>
    line('server', { server, status: undefined, trouble: { trouble, message: 'm' } }).action?.id;
  assert.equal(button('absent'), 'install');
  assert.equal(button('python'), 'choosePython');
  assert.equal(button('setting'), 'openSettings');
  assert.equal(button('platform'), undefined);
  assert.equal(line('server', { server: { kind: 'failed', reason: 'r' } }).action.id, 'restart');
  assert.equal(line('server', { server, installing: 'x' }).state, 'working');
});

test('a model that failed its test, or is outranked, is warned of', () => {
  assert.equal(line('model', { status: { ...STATUS, model: null } }).state, 'todo');
  assert.equal(line('model', { tested: { state: 'failed', message: 'no' } }).state, 'warning');
  assert.equal(line('model', { notice: 'outranked' }).detail, 'outranked');
  assert.match(line('model', { status: { ...STATUS, model: 'offline' } }).detail, /not a mind/);
});

test('without a jail the way to it is offered', () => {
  const changes = line('isolation', { status: { ...STATUS, isolation: 'changes', isolationDetail: 'd' } });
  assert.deepEqual([changes.state, changes.action.id, changes.detail], ['warning', 'isolationHelp', 'd']);
});
