// The pages of the loops as HTML: a round, a question of a loop's, the chart of spend.
//
// Invariants: a page has no script, loads nothing but our own style sheet, and can run only the commands that are named
// in COMMANDS. Text of others is escaped, or Markdown in which HTML is text, pictures are links and a link's only
// command is the one that checks its target; its arguments are data.

import {
  chartOf,
  duration,
  EVOLUTION_PHASES,
  LEVELS,
  money,
  outcome,
  PHASES,
  shortLevel,
  spending,
  tokens,
  whenWas,
  type Series,
} from './loop_words';
import { markdown } from './panel/blocks';
import type {
  AgentReport,
  EvidenceInfo,
  FileDiff,
  GateInfo,
  ReceiptInfo,
  RoundReport,
  RunReadResult,
  SpendRow,
} from './protocol';
import { plural, visible } from './review_model';

/** The only commands that a page may run. */
export const COMMANDS = {
  activate: 'selfloop.generations.activate',
  answer: 'selfloop.loops.answer',
  cancel: 'selfloop.loops.cancel',
  generation: 'selfloop.generations.read',
  link: 'selfloop.loops.link',
  output: 'selfloop.loops.output',
  refuse: 'selfloop.loops.refuse',
  review: 'selfloop.loops.review',
  session: 'selfloop.loops.session',
} as const;

/** Longer text is cut on the page; the whole of it stays in the record. */
const MOST_CHARACTERS = 100_000;
const MOST_DIFF_LINES = 2_000;
const MOST_COLOURS = 6;
const CHART = { width: 760, height: 220, left: 44, bottom: 24, top: 10 };

/** Return text as HTML that shows it as it is, what is invisible in it written out. */
export function escaped(text: string): string {
  return visible(text).replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** Return a whole page. `style` and `source` are where the style sheet lies and what the policy calls that place. */
export function page(title: string, body: string, style: string, source: string): string {
  const policy = `default-src 'none'; style-src ${source}; base-uri 'none'; form-action 'none'`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escaped(policy)}">
<link rel="stylesheet" href="${escaped(style)}">
<title>${escaped(title)}</title>
</head>
<body><main class="page">
${body}
</main></body>
</html>`;
}

/** Return a model's Markdown as HTML. */
export function prose(text: string): string {
  const shown = text.length > MOST_CHARACTERS ? text.slice(0, MOST_CHARACTERS) : text;
  const html = markdown
    .render(visible(shown.replace(/\r\n?/g, '\n')))
    // Only our own rules make an element `a`: what looks like one in the text is escaped.
    .replace(/<a href="#"((?: class="path")?) data-href="([^"]*)"/g, (_, kind: string, target: string) => {
      return `<a${kind} href="${href(COMMANDS.link, unescaped(target))}"`;
    });
  const more = shown === text ? '' : `<p class="dim">And ${text.length - shown.length} more characters.</p>`;
  return `<div class="prose">${html}${more}</div>`;
}

// A round

/** Return the page of a round. `gates` are those of it that wait for the user. */
export function runBody(runId: string, read: RunReadResult, gates: readonly GateInfo[], now: Date): string {
  const { run } = read;
  const parts = run === undefined ? running(runId, read) : ended(run, now);
  const questions = gates.map(
    (gate) =>
      `<aside class="waits"><span>Waits for you: ${escaped(gate.title)}</span>` +
      `${button('Review', COMMANDS.review, gate.gateId)}</aside>`,
  );
  if (run === undefined) return [...parts, ...questions, files(read.files), sessions(read)].join('\n');
  const why = run.outcome.error ?? run.outcome.reason;
  return [
    ...parts,
    ...(why ? [`<p class="${run.outcome.type === 'failed' ? 'bad' : ''}">${escaped(why)}</p>`] : []),
    ...questions,
    receipts(run.receipts, now),
    agent('Maker', run.maker),
    agent('Checker', run.checker, run.verified),
    evidence(read.evidence),
    run.action === undefined
      ? ''
      : `<h2>Action</h2><p><code>${escaped(run.action.kind)}</code> ${escaped(run.action.summary)}</p>`,
    files(read.files),
    sessions(read),
  ].join('\n');
}

function ended(run: RoundReport, now: Date): string[] {
  const took = duration(run.startedAt, run.endedAt);
  const facts = [
    shortLevel(run.level),
    whenWas(run.endedAt, now),
    took === undefined ? '' : `took ${took}`,
    `${tokens(run.inputTokens)} tokens in, ${tokens(run.outputTokens)} out`,
    run.costUsd === undefined ? '' : money(run.costUsd),
  ];
  return [
    `<h1>${escaped(run.loopId)} <span class="pill ${run.outcome.type}">${escaped(outcome(run))}</span></h1>`,
    `<p class="dim">${escaped(run.intent)}</p>`,
    `<p class="facts">${facts.flatMap((fact) => (fact ? [`<span>${escaped(fact)}</span>`] : [])).join('')}</p>`,
  ];
}

function running(runId: string, { phase }: RunReadResult): string[] {
  const words = phase in PHASES ? PHASES : EVOLUTION_PHASES;
  const names = Object.keys(words) as (keyof typeof words)[];
  const at = names.indexOf(phase);
  const steps = names.slice(0, -1).map((name, index) => {
    const state = index < at ? 'past' : index === at ? 'now' : '';
    return `<li class="${state}"${index === at ? ' aria-current="step"' : ''}>${words[name]}</li>`;
  });
  return [
    '<h1>A round is running</h1>',
    `<ol class="steps">${steps.join('')}</ol>`,
    `<p>${button('Cancel This Round', COMMANDS.cancel, runId)}</p>`,
  ];
}

function agent(who: string, report: AgentReport | undefined, verified?: boolean): string {
  if (report === undefined) return '';
  const pill =
    verified === undefined
      ? ''
      : ` <span class="pill ${verified ? 'proceeded' : 'escalated'}">${verified ? 'verified' : 'not verified'}</span>`;
  const status = {
    Done: 'done',
    DoneWithConcerns: 'done, with concerns',
    NeedsContext: 'needs context',
    Blocked: 'blocked',
  };
  const facts = `${status[report.status]} · ${plural(report.iterations, 'call')} of the model`;
  const said = report.text.trim() ? prose(report.text) : '<p class="dim">It said nothing.</p>';
  return `<h2>${who}${pill} <small>${facts}</small></h2>${said}`;
}

function evidence(rows: readonly EvidenceInfo[]): string {
  if (rows.length === 0) return '';
  const lines = rows.map(({ check, command, exitCode, uri, counts }) => {
    const good = exitCode === 0 && counts !== false;
    const note = counts === false ? ' <span class="dim">proves nothing</span>' : '';
    const output = uri === '' ? '' : `<a href="${href(COMMANDS.output, uri)}">Output</a>`;
    return (
      `<tr><td>${escaped(check)}</td><td><code>${escaped(command)}</code></td>` +
      `<td class="${good ? 'good' : 'bad'}">exit ${exitCode}${note}</td><td>${output}</td></tr>`
    );
  });
  const head = '<tr><th>Check</th><th>Command</th><th>Result</th><th><span class="hidden">Output</span></th></tr>';
  return `<h2>Evidence</h2>${table(head, lines)}`;
}

export function table(head: string, rows: readonly string[]): string {
  return `<div class="table"><table><thead>${head}</thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function receipts(rows: readonly ReceiptInfo[] | undefined, now: Date): string {
  if (!rows?.length) return '';
  const lines = rows.map(({ summary, at, uri }) => {
    const link = uri === undefined ? '' : ` <a href="${href(COMMANDS.link, uri)}">Open</a>`;
    return `<li>${escaped(summary)}${link} <span class="dim">${escaped(whenWas(at, now) ?? '')}</span></li>`;
  });
  return `<h2>Carried Out</h2><ul>${lines.join('')}</ul>`;
}

function files(rows: readonly FileDiff[] | undefined): string {
  if (!rows?.length) return '';
  const lines = rows.map(({ uri, operation, diff }) => {
    const name = decodeURIComponent(uri.slice(uri.lastIndexOf('/') + 1).replace(/%(?![\da-f]{2})/gi, '%25'));
    return `<details><summary>${escaped(name)} <span class="dim">${operation}</span></summary>${patch(diff)}</details>`;
  });
  return `<h2>What the Maker Changed</h2>${lines.join('')}`;
}

export function patch(diff: string): string {
  const lines = diff.replace(/\n$/, '').split('\n');
  const shown = lines.slice(0, MOST_DIFF_LINES).map((line) => {
    const kind = /^(?:\+\+\+|---|@@)/.test(line)
      ? 'dim'
      : line.startsWith('+')
        ? 'plus'
        : line.startsWith('-')
          ? 'minus'
          : '';
    return `<span class="${kind}">${escaped(line)}</span>`;
  });
  const more = lines.length - shown.length;
  return `<pre>${shown.join('\n')}</pre>${more > 0 ? `<p class="dim">And ${plural(more, 'more line')}.</p>` : ''}`;
}

function sessions({ makerSessionId, checkerSessionId }: RunReadResult): string {
  const links = [
    makerSessionId === undefined ? '' : button('What the Maker Did', COMMANDS.session, makerSessionId),
    checkerSessionId === undefined ? '' : button('What the Checker Did', COMMANDS.session, checkerSessionId),
  ].filter(Boolean);
  return links.length === 0 ? '' : `<p class="buttons">${links.join('')}</p>`;
}

// A question of a loop's

/** Return the page of a gate on an action or a level: exactly what an approval brings about, and the two answers. */
export function questionBody(gate: GateInfo): string {
  const { subject } = gate;
  const parts = [`<h1>${escaped(gate.title)} <span class="pill ${gate.risk}">${gate.risk} risk</span></h1>`];
  if (gate.description) parts.push(`<p>${escaped(gate.description)}</p>`);
  if (subject['type'] === 'level')
    parts.push(authority('before', subject['before']), authority('after', subject['after']));
  if (typeof subject['preview'] === 'string') {
    parts.push('<h2>Exactly this would be sent</h2>', `<pre>${escaped(subject['preview'])}</pre>`);
  }
  if (gate.state === 'open') {
    const options = gate.options.filter((option) => option.kind === 'allow_once' || option.kind === 'reject_once');
    const buttons = options.map((option) =>
      button(option.name, COMMANDS.answer, gate.gateId, option.optionId, gate.digest),
    );
    parts.push(`<p class="buttons">${buttons.join('')}</p>`);
  } else {
    parts.push(`<p class="dim">This is answered (${escaped(gate.resolvedBy ?? gate.state)}); nothing waits here.</p>`);
  }
  return parts.join('\n');
}

function authority(when: 'before' | 'after', value: unknown): string {
  if (typeof value !== 'object' || value === null) return '';
  const { level, allow } = value as { level?: unknown; allow?: unknown };
  const known = LEVELS.find((one) => one.level === level);
  const may = Array.isArray(allow) && allow.length > 0 ? allow.map(String).join(', ') : 'nothing';
  return (
    `<h2>${when === 'before' ? 'As it is' : 'If you approve'}</h2>` +
    `<p><strong>${escaped(known === undefined ? String(level) : `${known.short} ${known.name}`)}</strong> ` +
    `${escaped(known?.meaning ?? '')}<br><span class="dim">Allowed without asking: ${escaped(may)}</span></p>`
  );
}

// Spend

/** Return the page of what was spent by loop and day, chats together as one. */
export function spendBody(rows: readonly SpendRow[], days: number, now: Date): string {
  const chart = chartOf(rows, days, now);
  if (chart.most === 0) return `<h1>Spend</h1><p class="dim">Nothing was spent in the last ${plural(days, 'day')}.</p>`;
  const { width, height, left, bottom, top } = CHART;
  const floor = height - bottom;
  const step = (width - left) / days;
  const bars = chart.days.flatMap((day, at) => {
    let y = floor;
    return chart.series.map((one, index) => {
      const value = one.tokens[at] ?? 0;
      const size = (value / chart.most) * (floor - top);
      y -= size;
      if (value === 0) return '';
      const across = `x="${round(left + at * step + step * 0.15)}" width="${round(step * 0.7)}"`;
      const said = escaped(`${day}, ${nameOf(one)}: ${tokens(value)} tokens`);
      const shape = `${across} y="${round(y)}" height="${round(size)}"`;
      return `<rect class="${colour(one, index)}" ${shape}><title>${said}</title></rect>`;
    });
  });
  const lines = [0.5, 1].map((part) => {
    const y = round(floor - part * (floor - top));
    const label = tokens(Math.round(chart.most * part));
    return (
      `<line x1="${left}" x2="${width}" y1="${y}" y2="${y}"/>` +
      `<text x="${left - 6}" y="${y + 4}" text-anchor="end">${label}</text>`
    );
  });
  const every = Math.ceil(days / 7);
  const labels = chart.days.map((day, at) =>
    (days - 1 - at) % every === 0
      ? `<text x="${round(left + (at + 0.5) * step)}" y="${height - 6}" text-anchor="middle">${day.slice(5)}</text>`
      : '',
  );
  const sums = chart.series.map((one, index) => {
    const box = `<rect class="${colour(one, index)}" width="10" height="10"/>`;
    return (
      `<tr><td><svg class="key" viewBox="0 0 10 10" aria-hidden="true">${box}</svg>${escaped(nameOf(one))}</td>` +
      `<td>${tokens(one.tokens.at(-1) ?? 0)}</td><td>${spending(one.total)}</td></tr>`
    );
  });
  const label = 'Tokens by loop and day; the table below has the sums';
  return [
    `<h1>Spend <small>last ${plural(days, 'day')}, in tokens</small></h1>`,
    `<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">`,
    `<line class="floor" x1="${left}" x2="${width}" y1="${floor}" y2="${floor}"/>`,
    ...lines,
    ...bars,
    ...labels,
    '</svg>',
    table(`<tr><th>Loop</th><th>Today</th><th>${plural(days, 'day')}</th></tr>`, sums),
  ].join('\n');
}

function nameOf({ loopId }: Series): string {
  return loopId ?? 'Chats';
}

function colour({ loopId }: Series, index: number): string {
  return loopId === undefined ? 'c-chat' : `c${index % MOST_COLOURS}`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

// Links

/** Return the address of a link that runs one of our commands; it can leave neither the attribute nor its arguments. */
function href(command: string, ...args: string[]): string {
  return `command:${command}?${encodeURIComponent(JSON.stringify(args)).replace(/'/g, '%27')}`;
}

export function button(label: string, command: string, ...args: string[]): string {
  return `<a class="button" role="button" href="${href(command, ...args)}">${escaped(label)}</a>`;
}

function unescaped(text: string): string {
  return text
    .replace(/&lt;/g, '<')
    .replace(/&gt;/g, '>')
    .replace(/&quot;/g, '"')
    .replace(/&amp;/g, '&');
}
