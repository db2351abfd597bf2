// Origins, which keys are bound to, and what the model page warns of.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let models;
before(async () => {
  models = await load('models.ts');
});

test('an origin is scheme, host and port, and nothing that could carry a name', () => {
  assert.equal(models.originOf('https://OpenRouter.ai:443/api/v1'), 'https://openrouter.ai');
  assert.equal(models.originOf(' http://localhost:11434/v1 '), 'http://localhost:11434');
  for (const bad of ['', 'openrouter.ai', 'file:///x', 'https://user:pw@host/v1', 'javascript:alert(1)', 'https://']) {
    assert.equal(models.originOf(bad), undefined, bad);
  }
});

test('an address is taken without the route that people paste with it', () => {
  assert.equal(models.baseUrlOf('https://h/v1/'), 'https://h/v1');
  assert.equal(models.baseUrlOf('https://h/v1/chat/completions'), 'https://h/v1');
  assert.equal(models.baseUrlOf('https://h/v1/models/'), 'https://h/v1');
  assert.equal(models.baseUrlOf('nothing'), undefined);
});

test('what is local needs no key', () => {
  for (const local of [
    'http://localhost:1',
    'http://127.0.0.1:1',
    'http://[::1]:1',
    'http://192.168.1.5',
    'http://172.20.0.1',
    'http://box.lan',
    'http://box',
  ]) {
    assert.equal(models.isLocal(local), true, local);
  }
  for (const remote of [
    'https://openrouter.ai',
    'http://172.32.0.1',
    'http://8.8.8.8',
    'https://localhost.example.com',
    'http://[2001:db8::1]',
  ]) {
    assert.equal(models.isLocal(remote), false, remote);
  }
});

test('a model without tools or with a small context is warned of, and what is not known is not', () => {
  assert.deepEqual(models.warnings({}), []);
  assert.deepEqual(models.warnings({ tools: true, contextTokens: 16_000 }), []);
  assert.match(models.warnings({ tools: false })[0], /text protocol/);
  assert.match(models.warnings({ contextTokens: 8_192 })[0], /8,192 tokens is small/);
});

test('what outranks a choice is named, and what agrees with it is not', () => {
  const by = { modelBy: 'The setting', baseUrlBy: 'The variable' };
  assert.equal(models.outranked('a', 'https://h/v1', [{ ...by, model: '', baseUrl: '' }]), undefined);
  assert.equal(models.outranked('a', 'https://h/v1', [{ ...by, model: 'a', baseUrl: 'https://h/v1/' }]), undefined);
  assert.match(models.outranked('a', undefined, [{ ...by, model: 'b' }]), /^The setting says b/);
  assert.match(models.outranked('a', 'https://h/v1', [{ ...by, baseUrl: 'https://other/v1' }]), /^The variable says/);
});
