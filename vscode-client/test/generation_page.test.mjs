// The pages of generations: the lineage, one of them, and the question whether a new one may serve.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let pages;
before(async () => {
  pages = await load('generation_page.ts');
});

const now = new Date('2026-11-20T14:30:00Z');
const HOSTILE = '<script>alert(1)</script>" onclick="x [x](command:workbench.action.quit) ‮';
const generation = (number, more = {}) => ({
  number,
  commit: 'c',
  tree: 't',
  state: 'settled',
  createdAt: '2026-11-20T14:00:00Z',
  summary: 'Shorter answers.',
  tokens: { inputTokens: 0, cachedTokens: 0, outputTokens: 0 },
  ...more,
});
const layer = { name: 'G3', title: 'Tests', passed: true, reason: 'All 12 pass.', seconds: 3.25 };

test('the lineage offers to go back to each that does not serve, and to no other', () => {
  const list = { generations: [generation(0), generation(1, { parent: 0, state: 'active' })], active: 1 };
  const html = pages.lineageBody(list, '<svg></svg>', now);
  const commands = [...html.matchAll(/href="command:([\w.]+)\?([^"]*)"/g)].map((one) => [one[1], decodeURIComponent(one[2])]);
  assert.deepEqual(
    commands.filter(([name]) => name === 'selfloop.generations.activate'),
    [['selfloop.generations.activate', '["0"]']],
  );
  assert.match(html, /generation 1 serves/);
});

test('a paused evolution says why', () => {
  const list = { generations: [generation(0)], active: 0, paused: 'Three in a row were rolled back.' };
  assert.match(pages.lineageBody(list, '', now), /Three in a row were rolled back\./);
});

test('a generation shows what proves it, layer by layer', () => {
  const read = { generation: generation(1, { parent: 0 }), diff: '-a\n+b\n', evidence: [layer], origins: ['one'] };
  const html = pages.generationBody({ ...read, verify: 'python -m pytest x' }, now);
  for (const said of ['G3', 'All 12 pass.', '3.3 s', 'python -m pytest x', '<span class="plus">+b</span>'])
    assert.ok(html.includes(said), said);
});

test('text of others becomes no element and no address', () => {
  const subject = { type: 'evolution', summary: HOSTILE, learned: HOSTILE, verify: HOSTILE, origins: [HOSTILE] };
  const gate = {
    gateId: 'g',
    state: 'open',
    subject: { ...subject, diff: `+${HOSTILE}`, layers: [{ ...layer, reason: HOSTILE, details: [HOSTILE] }] },
    title: HOSTILE,
    description: HOSTILE,
    risk: 'high',
    options: [
      { optionId: 'approve', name: 'Approve', kind: 'allow_once' },
      { optionId: 'reject', name: 'Reject', kind: 'reject_once' },
    ],
    default: 'reject',
    digest: 'd',
    createdAt: '2026-11-20T14:00:00Z',
  };
  const html = pages.evolutionBody(gate) + pages.lineageBody({ generations: [generation(0, { summary: HOSTILE })], active: 0 }, '', now);
  assert.doesNotMatch(html, /<script|<[a-z]+ [^>]*onclick=/i);
  const names = [...html.matchAll(/href="command:([\w.]+)/g)].map((one) => one[1]);
  assert.deepEqual(
    [...new Set(names)].sort(),
    ['selfloop.loops.answer', 'selfloop.loops.link', 'selfloop.loops.refuse'].filter((name) => names.includes(name)),
  );
  assert.ok(html.includes('‹U+202E›'));
});
