// When a loop runs next and ran last, what it spent, and the rows behind the chart.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let words;
before(async () => {
  words = await load('loop_words.ts');
});

// Local times, so that the tests hold in every zone.
const now = new Date(2026, 2, 11, 14, 30);
const at = (...parts) => new Date(2026, ...parts).toISOString();
const report = (type, more = {}) => ({
  runId: 'r',
  loopId: 'l',
  intent: 'i',
  level: 'L1-report',
  verified: false,
  inputTokens: 1,
  outputTokens: 1,
  startedAt: at(2, 11, 14, 0),
  endedAt: at(2, 11, 14, 25),
  outcome: { type, ...more },
});
const row = (day, loopId, inputTokens, more = {}) => ({
  day,
  ...(loopId ? { loopId } : { sessionId: 's' }),
  inputTokens,
  cachedTokens: 0,
  outputTokens: 0,
  ...more,
});

test('when a loop is due is said as people say it', () => {
  assert.equal(words.whenDue(undefined, now), undefined);
  assert.equal(words.whenDue('no time', now), undefined);
  assert.equal(words.whenDue(at(2, 11, 14, 29), now), 'due now');
  assert.equal(words.whenDue(at(2, 11, 14, 30, 1), now), 'in 1 min');
  assert.equal(words.whenDue(at(2, 11, 15, 29), now), 'in 59 min');
  assert.equal(words.whenDue(at(2, 11, 18, 5), now), 'today 18:05');
  assert.equal(words.whenDue(at(2, 12, 9, 0), now), 'tomorrow 09:00');
  assert.equal(words.whenDue(at(2, 16, 9, 0), now), 'Mon 09:00');
  assert.equal(words.whenDue(at(2, 18, 9, 0), now), '18 Mar 09:00');
});

test('how long ago it ran is said by the calendar, not by hours alone', () => {
  assert.equal(words.whenWas(at(2, 11, 14, 29, 30), now), 'just now');
  assert.equal(words.whenWas(at(2, 11, 14, 25), now), '5 min ago');
  assert.equal(words.whenWas(at(2, 11, 9, 0), now), '5 h ago');
  assert.equal(words.whenWas(at(2, 10, 23, 59), new Date(2026, 2, 11, 1, 30)), 'yesterday 23:59');
  assert.equal(words.whenWas(at(2, 8, 9, 0), now), 'Sun 09:00');
  assert.equal(words.whenWas(at(1, 1, 9, 0), now), '1 Feb');
});

test('a duration, tokens and money have few digits', () => {
  assert.equal(words.duration(at(2, 1, 1, 0, 0), at(2, 1, 1, 0, 4)), '4 s');
  assert.equal(words.duration(at(2, 1, 1, 0, 0), at(2, 1, 1, 1, 5)), '1 min 5 s');
  assert.equal(words.duration(at(2, 1, 1, 0, 0), at(2, 1, 3, 3, 5)), '2 h 3 min');
  assert.equal(words.duration('x', 'y'), undefined);
  assert.deepEqual(
    [0, 999, 1000, 1249, 9949, 9950, 12_345, 999_499, 999_500, 1_250_000, 25_000_000].map(words.tokens),
    ['0', '999', '1k', '1.2k', '9.9k', '10k', '12k', '999k', '1M', '1.3M', '25M'],
  );
  assert.deepEqual([0, 0.0312, 0.5, 12].map(words.money), ['$0.00', '$0.0312', '$0.50', '$12.00']);
});

test('what stands behind a loop is level, cadence, next run, last outcome and spend', () => {
  const loop = { level: 'L2-assisted', cadence: 'every 10m', enabled: true, nextAt: at(2, 11, 14, 35) };
  const none = { tokens: 0 };
  assert.equal(words.describe(loop, none, now), 'L2 · every 10m · in 5 min');
  assert.equal(
    words.describe({ ...loop, lastRun: report('escalated') }, { tokens: 12_000, costUsd: 0.31 }, now),
    'L2 · every 10m · in 5 min · asked you 5 min ago · 12k tokens, $0.31 today',
  );
  assert.equal(words.describe({ ...loop, enabled: false }, none, now), 'L2 · off');
  assert.equal(words.describe(loop, none, now, 'check'), 'L2 · every 10m · checking…');
});

test('every outcome has words, a limit of the day included', () => {
  assert.equal(words.outcome(report('proceeded')), 'carried out');
  assert.equal(words.outcome(report('budget-exhausted', { limit: 'cost-day' })), 'out of budget (cost of the day)');
  assert.equal(words.outcome(report('failed')), 'failed');
});

test('a level is above another by its authority', () => {
  assert.equal(words.isAbove('L3-unattended', 'L2-assisted'), true);
  assert.equal(words.isAbove('L1-report', 'L1-report'), false);
});

test('rows of spend become one bar for each day, the biggest spender first and the chats last', () => {
  const rows = [
    row('2026-03-11', 'small', 10),
    row('2026-03-11', undefined, 500),
    row('2026-03-11', undefined, 500),
    row('2026-03-10', 'big', 300, { outputTokens: 100, costUsd: 0.2 }),
    row('2026-03-09', 'big', 50, { costUsd: 0.1 }),
    row('2026-03-01', 'old', 9_999),
  ];
  const chart = words.chartOf(rows, 3, now);
  assert.deepEqual(chart.days, ['2026-03-09', '2026-03-10', '2026-03-11']);
  assert.deepEqual(
    chart.series.map((one) => one.loopId),
    ['big', 'small', undefined],
  );
  assert.deepEqual(chart.series[0].tokens, [50, 400, 0]);
  assert.deepEqual(chart.series[2].tokens, [0, 0, 1000]);
  assert.equal(chart.most, 1010);
  assert.equal(chart.series[0].total.costUsd.toFixed(2), '0.30');
  assert.equal(chart.series[1].total.costUsd, undefined, 'a price that nobody knows is not zero');
  assert.deepEqual(words.chartOf([], 2, now).series, []);
});

test('days of the chart do not skip or repeat across daylight saving', () => {
  for (const month of [2, 9]) {
    const { days } = words.chartOf([], 31, new Date(2026, month, 31, 0, 10));
    assert.equal(new Set(days).size, 31);
    assert.equal(days[0].slice(-2), '01');
  }
});

test('what one loop spent leaves out the others and the chats', () => {
  const rows = [row('d', 'a', 5), row('d', 'b', 7), row('d', undefined, 9)];
  assert.deepEqual(words.spentBy(rows, 'a'), { tokens: 5 });
  assert.equal(words.spending({ tokens: 1500, costUsd: 0.5 }), '1.5k tokens, $0.50');
});
