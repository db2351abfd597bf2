// The pages of generations as HTML: the lineage, one generation, and the question whether a new one may serve.
//
// Invariants: those of `page_html.ts`, whose parts these are made of. The picture of the lineage is the server's.

import { button, COMMANDS, escaped, patch, prose, table } from './page_html';
import { money, tokens, whenWas } from './loop_words';
import type { GateInfo, GenerationInfo, GenerationListResult, GenerationReadResult, LayerInfo } from './protocol';

const STATES: Record<GenerationInfo['state'], [words: string, pill: string]> = {
  verified: ['verified', 'reported'],
  active: ['on probation', 'escalated'],
  settled: ['settled', 'proceeded'],
  'rolled-back': ['rolled back', 'failed'],
};

/** Return the page of the lineage. `svg` is a document of the server's without scripts or outside parts. */
export function lineageBody(list: GenerationListResult, svg: string, now: Date): string {
  const rows = [...list.generations].reverse().map((one) => {
    const [words, pill] = STATES[one.state];
    const serves = one.number === list.active;
    const action = serves
      ? '<strong>serves</strong>'
      : button(one.number === 0 ? 'Go Back to the Package' : 'Activate', COMMANDS.activate, String(one.number));
    return (
      `<tr><td>${one.number}</td><td>${escaped(one.summary)}</td>` +
      `<td><span class="pill ${pill}">${words}</span></td><td class="dim">${escaped(whenWas(one.createdAt, now) ?? '')}</td>` +
      `<td>${one.number === 0 ? '' : button('What Changed', COMMANDS.generation, String(one.number))}</td>` +
      `<td>${action}</td></tr>`
    );
  });
  const head = '<tr><th>No.</th><th>What it changed</th><th>State</th><th>Made</th><th></th><th></th></tr>';
  const paused = list.paused === undefined ? '' : `<aside class="waits"><span>${escaped(list.paused)}</span></aside>`;
  const none =
    list.generations.length > 1
      ? ''
      : '<p class="dim">Selfloop has not changed itself yet. <em>Selfloop: Evolve</em> has it learn from its sessions; ' +
        'nothing it makes serves before you have approved it.</p>';
  return [
    `<h1>Generations <small>generation ${list.active} serves</small></h1>`,
    paused,
    `<div class="lineage">${svg}</div>`,
    none,
    table(head, rows),
  ].join('\n');
}

/** Return the page of one generation. */
export function generationBody(read: GenerationReadResult, now: Date): string {
  const { generation: one } = read;
  const [words, pill] = STATES[one.state];
  const facts = [
    one.parent === undefined ? '' : `from generation ${one.parent}`,
    whenWas(one.createdAt, now) ?? '',
    one.tokens.inputTokens + one.tokens.outputTokens > 0
      ? `${tokens(one.tokens.inputTokens)} tokens in, ${tokens(one.tokens.outputTokens)} out`
      : '',
    one.tokens.costUsd === undefined ? '' : money(one.tokens.costUsd),
    one.approvedBy === undefined ? '' : `approved by ${one.approvedBy}`,
  ];
  return [
    `<h1>Generation ${one.number} <span class="pill ${pill}">${words}</span></h1>`,
    `<p>${escaped(one.summary)}</p>`,
    factsOf(facts),
    one.reason === undefined ? '' : `<p class="bad">${escaped(one.reason)}</p>`,
    learned(read.learned, read.verify, read.origins),
    layersOf(read.evidence),
    read.diff === '' ? '' : `<h2>The Change</h2>${patch(read.diff)}`,
  ].join('\n');
}

/** Return the page of the gate on a new generation: what was learned, the change, what proves it, and the answers. */
export function evolutionBody(gate: GateInfo): string {
  const subject = gate.subject as {
    summary?: string;
    learned?: string;
    verify?: string;
    origins?: string[];
    layers?: LayerInfo[];
    diff?: string;
    tokens?: { inputTokens: number; outputTokens: number };
    costUsd?: number;
    parent?: number;
  };
  const facts = [
    subject.parent === undefined ? '' : `a change of generation ${subject.parent}`,
    subject.tokens === undefined
      ? ''
      : `${tokens(subject.tokens.inputTokens)} tokens in, ${tokens(subject.tokens.outputTokens)} out`,
    subject.costUsd === undefined ? '' : money(subject.costUsd),
  ];
  const options = gate.options.filter(({ kind }) => kind === 'allow_once' || kind === 'reject_once');
  const buttons = options.map(({ name, kind, optionId }) =>
    kind === 'allow_once'
      ? button(name, COMMANDS.answer, gate.gateId, optionId, gate.digest)
      : button(`${name}…`, COMMANDS.refuse, gate.gateId, optionId, gate.digest),
  );
  return [
    `<h1>${escaped(gate.title)} <span class="pill ${gate.risk}">${gate.risk} risk</span></h1>`,
    gate.description ? `<p>${escaped(gate.description)}</p>` : '',
    factsOf(facts),
    '<p class="dim">If you approve, the server goes on as this generation at once. It is on probation then: a crash, a ' +
      'hang or your <em>Undo</em> brings the present one back.</p>',
    gate.state === 'open'
      ? `<p class="buttons">${buttons.join('')}</p>`
      : `<p class="dim">This is answered (${escaped(gate.resolvedBy ?? gate.state)}); nothing waits here.</p>`,
    learned(subject.learned, subject.verify, subject.origins),
    layersOf(subject.layers),
    typeof subject.diff === 'string' && subject.diff !== '' ? `<h2>The Change</h2>${patch(subject.diff)}` : '',
  ].join('\n');
}

function factsOf(facts: readonly string[]): string {
  return `<p class="facts">${facts.flatMap((fact) => (fact ? [`<span>${escaped(fact)}</span>`] : [])).join('')}</p>`;
}

function learned(text: string | undefined, verify: string | undefined, origins: readonly string[] | undefined): string {
  const parts = text ? [`<h2>What Was Learned</h2>${prose(text)}`] : [];
  if (verify) parts.push(`<p>This failed before the change and passes after it: <code>${escaped(verify)}</code></p>`);
  if (origins?.length) {
    const rows = origins.map((origin) => `<li>${escaped(origin)}</li>`).join('');
    parts.push(`<details><summary>Learned from ${origins.length} of its sessions</summary><ul>${rows}</ul></details>`);
  }
  return parts.join('\n');
}

function layersOf(layers: readonly LayerInfo[] | undefined): string {
  if (!layers?.length) return '';
  const rows = layers.map(({ name, title, passed, reason, seconds, details }) => {
    const more = details?.length
      ? `<details><summary>${details.length} more</summary><ul>${details.map((one) => `<li>${escaped(one)}</li>`).join('')}</ul></details>`
      : '';
    return (
      `<tr><td>${escaped(name)}</td><td>${escaped(title)}<br><span class="dim">${escaped(reason)}</span>${more}</td>` +
      `<td class="${passed ? 'good' : 'bad'}">${passed ? 'passed' : 'failed'}</td><td>${seconds.toFixed(1)} s</td></tr>`
    );
  });
  const head = '<tr><th>Layer</th><th>What it looks at</th><th>Result</th><th>Took</th></tr>';
  return `<h2>What Proves It</h2>${table(head, rows)}`;
}
