// The pages of the loops: whatever a model, a file or a command says, a page shows it harmless.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { load } from './load.mjs';

let pages;
before(async () => {
  pages = await load('page_html.ts');
});

const now = new Date('2026-03-11T14:30:00Z');
const agent = (text) => ({ status: 'Done', iterations: 2, text });
const run = (more = {}) => ({
  runId: 'run-1',
  loopId: 'daily-triage',
  intent: 'Look.',
  level: 'L1-report',
  outcome: { type: 'reported' },
  verified: true,
  inputTokens: 1200,
  outputTokens: 80,
  startedAt: '2026-03-11T14:00:00Z',
  endedAt: '2026-03-11T14:01:05Z',
  maker: agent('All is well.'),
  ...more,
});
const read = (more = {}) => ({ rendered: '', evidence: [], phase: 'done', run: run(), ...more });
const body = (more, gates = []) => pages.runBody('run-1', read(more), gates, now);
/** Every address in a page, and whatever else could load, run or follow something. */
const addresses = (html) =>
  [...html.matchAll(/\s(?:href|src|srcset|action|data|poster|xlink:href)="([^"]*)"/g)].map((one) => one[1]);
const elements = (html) => new Set([...html.matchAll(/<([a-z][\w:-]*)/gi)].map((one) => one[1].toLowerCase()));

const HOSTILE = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<a href="command:workbench.action.quit">x</a>',
  '[x](command:workbench.action.quit)',
  '[x](javascript:alert(1))',
  '![x](https://evil.example/p.png)',
  '<style>*{display:none}</style>',
  '"><iframe src=//evil.example>',
  "[x](https://h/' onclick='alert(1))",
  '<https://h/"onmouseover="x>',
  '`<b>`',
  '[x](https://h/a"b)',
  '<svg onload=alert(1)>',
  '</main><form action=//evil>',
  '[x][r]\n\n[r]: command:selfloop.loops.answer?%5B%22g%22%5D',
  '\u202e\u0007',
].join('\n\n');

test('text of others becomes no element, no address and no command but the one that checks its target', () => {
  const html = body(
    {
      run: run({
        loopId: HOSTILE,
        intent: HOSTILE,
        maker: agent(HOSTILE),
        checker: agent(HOSTILE),
        outcome: { type: 'escalated', reason: HOSTILE },
        action: { kind: HOSTILE, summary: HOSTILE },
        receipts: [{ kind: 'x', summary: HOSTILE, at: HOSTILE, uri: HOSTILE }],
      }),
      evidence: [{ check: HOSTILE, command: HOSTILE, exitCode: 0, uri: HOSTILE }],
      files: [{ uri: `file:///w/${HOSTILE}%zz`, operation: 'modify', diff: HOSTILE }],
      makerSessionId: HOSTILE,
    },
    [{ gateId: HOSTILE, title: HOSTILE }],
  );
  for (const element of ['script', 'img', 'style', 'iframe', 'svg', 'form', 'b', 'main', 'object', 'link', 'meta'])
    assert.ok(!elements(html).has(element), element);
  assert.doesNotMatch(html, /<[^>]*\son\w+=/i);
  for (const address of addresses(html))
    assert.match(address, /^command:selfloop\.loops\.(?:link|output|review|session)\?/);
  for (const address of addresses(html)) JSON.parse(decodeURIComponent(address.slice(address.indexOf('?') + 1)));
  assert.doesNotMatch(html, /[\u202e\u0007]/);
  assert.match(html, /‹U\+202E›/);
});

test('a link of the model leads to the command that checks it, with its target as it was', () => {
  const html = pages.prose("See [it](https://h/a?b=1&c='2') and `src/a.py:3`.");
  const targets = addresses(html).map((one) => JSON.parse(decodeURIComponent(one.slice(one.indexOf('?') + 1))));
  assert.deepEqual(targets, [["https://h/a?b=1&c='2'"], ['src/a.py:3']]);
});

test('a page allows no script and nothing from elsewhere', () => {
  const html = pages.page('T', '<p>x</p>', 'https://h/page.css', 'https://h');
  assert.match(
    html,
    /default-src &#39;none&#39;; style-src https:\/\/h; base-uri &#39;none&#39;; form-action &#39;none&#39;/,
  );
  assert.ok(!elements(html).has('script'));
});

test('a round shows maker, checker, evidence, tokens, and what waits', () => {
  const html = body(
    {
      run: run({ checker: agent('Checked.'), verified: true, costUsd: 0.02 }),
      evidence: [
        { check: 'test', command: 'pytest -q', exitCode: 0, uri: 'file:///w/.evo/out.txt' },
        { check: 'idle', command: 'true', exitCode: 0, uri: '', counts: false },
      ],
      makerSessionId: 's1',
    },
    [{ gateId: 'g1', title: 'Mend it' }],
  );
  for (const said of [
    'All is well.',
    'Checked.',
    'pytest -q',
    'exit 0',
    'proves nothing',
    '1.2k tokens in',
    '$0.0200',
    'took 1 min 5 s',
    'verified',
    'Waits for you: Mend it',
    'What the Maker Did',
  ])
    assert.ok(html.includes(said), said);
  assert.ok(addresses(html).includes('command:selfloop.loops.review?%5B%22g1%22%5D'));
});

test('a running round shows where it is and can be cancelled', () => {
  const html = pages.runBody('run-1', { rendered: '', evidence: [], phase: 'check' }, [], now);
  assert.match(html, /aria-current="step">Checking/);
  assert.ok(addresses(html).includes('command:selfloop.loops.cancel?%5B%22run-1%22%5D'));
});

test('a long text is cut, and the page says so', () => {
  const html = pages.prose('word '.repeat(1_000_000));
  assert.ok(html.length < 250_000);
  assert.match(html, /And 4900000 more characters/);
});

test('a question shows exactly what would be sent, and its answers carry what was shown', () => {
  const gate = {
    gateId: 'g',
    state: 'open',
    title: 'Open a pull request',
    risk: 'medium',
    digest: 'd'.repeat(64),
    createdAt: '',
    default: 'reject',
    subject: { type: 'action', kind: 'open-pr', preview: 'To: origin\n<b>Title</b>' },
    options: [
      { optionId: 'approve', name: 'Approve', kind: 'allow_once' },
      { optionId: 'reject', name: 'Reject', kind: 'reject_once' },
    ],
  };
  const html = pages.questionBody(gate);
  assert.match(html, /<pre>To: origin\n&#60;b&#62;Title/);
  const approve = addresses(html)[0];
  assert.deepEqual(JSON.parse(decodeURIComponent(approve.slice(approve.indexOf('?') + 1))), [
    'g',
    'approve',
    gate.digest,
  ]);
  assert.deepEqual(addresses(pages.questionBody({ ...gate, state: 'resolved', resolvedBy: 'reject' })), []);
  const level = pages.questionBody({
    ...gate,
    subject: {
      type: 'level',
      before: { level: 'L1-report', allow: [] },
      after: { level: 'L3-unattended', allow: ['commit'] },
    },
  });
  assert.match(level, /L1 Report[\s\S]*If you approve[\s\S]*L3 Unattended[\s\S]*commit/);
});

test('the chart has a bar for each spender and day, and a table for who cannot see it', () => {
  const row = (day, loopId, inputTokens) => ({
    day,
    ...(loopId ? { loopId } : {}),
    inputTokens,
    cachedTokens: 0,
    outputTokens: 0,
  });
  const local = new Date(2026, 2, 11, 12);
  const html = pages.spendBody(
    [row('2026-03-11', '<b>', 100), row('2026-03-10', '<b>', 50), row('2026-03-11', undefined, 40)],
    14,
    local,
  );
  assert.equal([...html.matchAll(/<rect class="c[^"]*" x=/g)].length, 3);
  assert.ok(!elements(html).has('b'));
  assert.match(html, /Chats/);
  assert.doesNotMatch(html, /NaN|undefined|style=/);
  assert.match(pages.spendBody([], 14, local), /Nothing was spent/);
});
