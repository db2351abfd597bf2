// What to know before deciding, as Markdown: the request, what ran, how it was fenced, and what to look at twice.
//
// Invariant: every word that is not ours is escaped or fenced, so that a file name, a command or a prompt can neither
// close its place nor make a link. Pure functions; the editor only renders them.

import type { GateFlag, GateInfo, GateReadResult } from './protocol';
import { countLines, plural, visible, type Item } from './review_model';

const MOST_LINES = 24;
const MOST_REQUEST = 300;
const FLAG_NAMES: Record<GateFlag['kind'], string> = {
  deletion: 'Deletion',
  dependency: 'Dependency',
  ci: 'CI',
  protected: 'Protected path',
  hidden: 'Hidden characters',
  binary: 'Binary',
  executable: 'Executable',
  link: 'Link',
};
const ISOLATION: Record<string, string> = {
  process: 'commands run in a jail, without network',
  changes: 'commands run in a copy of the folder, and not in a jail',
  none: 'no isolation: commands are asked about one by one',
};

/** Return text so that Markdown shows it as it is, on one line. */
export function escape(text: string): string {
  return visible(text.replace(/\s+/g, ' ').trim()).replace(/[\\`*_{}[\]()#+\-.!|<>~$&@:/]/g, '\\$&');
}

/** Return text for a notification, in which the editor would make links, of commands too, out of `[…](…)`. */
export function unlinked(text: string): string {
  return visible(text).replace(/\](?=\()/g, '] ');
}

/** Return text as a block of code that it cannot leave. */
export function fenced(text: string, language = ''): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${language}\n${text.replace(/\n$/, '')}\n${fence}`;
}

/** Return text as code within a line. */
export function code(text: string): string {
  const line = visible(text.replace(/\s+/g, ' ').trim()) || ' ';
  const longest = Math.max(0, ...[...line.matchAll(/`+/g)].map((run) => run[0].length));
  const mark = '`'.repeat(longest + 1);
  const pad = line.startsWith('`') || line.endsWith('`') ? ' ' : '';
  return `${mark}${pad}${line}${pad}${mark}`;
}

/** Return at most some lines of a text, everything in it visible, and say how many more there are. */
export function excerpt(text: string, most = MOST_LINES): { text: string; more: number } {
  const lines = visible(text.replace(/\r\n?/g, '\n')).replace(/\n$/, '').split('\n');
  const kept = lines.slice(0, most).map((line) => (line.length > 240 ? `${line.slice(0, 240)}…` : line));
  return { text: kept.join('\n'), more: Math.max(0, lines.length - most) };
}

/** Return the card of a proposal. */
export function proposalCard(view: GateReadResult): string {
  const { gate, card } = view;
  const parts = [`**${escape(gate.title)}**`];
  if (card?.request) {
    const request = card.request.length > MOST_REQUEST ? `${card.request.slice(0, MOST_REQUEST)}…` : card.request;
    parts.push(`> ${escape(request)}`);
  }
  const facts: string[] = [];
  if (card !== undefined) facts.push(`${plural(card.files, 'file')} · −${card.removed} +${card.added} lines`);
  facts.push(`${riskWord(gate.risk)} risk`);
  if (card !== undefined) facts.push(ISOLATION[card.isolation] ?? card.isolation);
  parts.push(facts.join(' · '));
  for (const flag of card?.flags ?? []) parts.push(`$(warning) **${FLAG_NAMES[flag.kind]}:** ${escape(flag.text)}`);
  parts.push(evidenceLines(view));
  return parts.join('\n\n');
}

function evidenceLines({ evidence }: GateReadResult): string {
  if (evidence.length === 0) return '$(circle-slash) Not tested: no command ran.';
  const rows = evidence.slice(-8).map(({ command, exitCode }) => {
    const icon = exitCode === 0 ? '$(pass)' : '$(error)';
    const said = exitCode === undefined ? 'was stopped' : `exit ${exitCode}`;
    return `- ${icon} ${code(command)} — ${said}`;
  });
  const more = evidence.length - rows.length;
  return ['What ran:', ...rows, ...(more > 0 ? [`- and ${more} before`] : [])].join('\n');
}

function riskWord(risk: GateInfo['risk']): string {
  return { low: 'low', medium: 'medium', high: 'high' }[risk];
}

/** What a command's gate asks about. */
export interface CommandSubject {
  command: string;
  /** With everything invisible written out. */
  shown: string;
  folder: string;
  network: boolean;
  isolation: string;
}

/** Return what a command's gate asks about; undefined for other gates. */
export function commandOf(gate: GateInfo): CommandSubject | undefined {
  const subject = gate.subject;
  if (subject['type'] !== 'command' || typeof subject['command'] !== 'string') return undefined;
  const folder = typeof subject['folder'] === 'string' ? subject['folder'] : '';
  return {
    command: subject['command'],
    shown: typeof subject['shown'] === 'string' ? subject['shown'] : visible(subject['command']),
    folder: folder === '' || folder === '.' ? 'the workspace folder' : folder,
    network: subject['network'] === true,
    isolation: typeof subject['isolation'] === 'string' ? subject['isolation'] : 'none',
  };
}

/** Return how a command would run, in a few words. */
export function commandFacts(subject: CommandSubject): string {
  // Without a jail nothing holds a command back from the network, whether it asked for it or not.
  const jailed = subject.isolation === 'process';
  const network = subject.network ? 'with network' : jailed ? 'without network' : 'network not blocked';
  const fence = jailed ? 'in a jail' : 'no jail: in a copy of the folder, with your rights';
  return `in ${subject.folder}, ${network}, ${fence}`;
}

/** Return the card of a command. */
export function commandCard(gate: GateInfo): string {
  const subject = commandOf(gate);
  if (subject === undefined) return escape(gate.title);
  const always = gate.options.find((option) => option.kind === 'allow_always')?.rule;
  const parts = [fenced(subject.shown, 'sh'), escape(capital(commandFacts(subject)))];
  if (gate.description) parts.push(escape(gate.description));
  if (always !== undefined) parts.push(`*Always* would store: ${code(always)}`);
  return parts.join('\n\n');
}

/** Return a command's gate as a text to open: all of it, however long. */
export function commandText(gate: GateInfo): string {
  const subject = commandOf(gate);
  if (subject === undefined) return gate.title;
  const always = gate.options.find((option) => option.kind === 'allow_always')?.rule;
  const comment = (text: string): string => `# ${visible(text).replace(/\n/g, ' ')}`;
  return [
    comment('Selfloop wants to run exactly the command below.'),
    comment(capital(commandFacts(subject))),
    ...(gate.description ? [comment(gate.description)] : []),
    ...(always === undefined ? [] : [comment('"Always" would store the rule:'), comment(`  ${always}`)]),
    '',
    subject.shown,
    '',
  ].join('\n');
}

/** Return what a hunk would put there, as the body of a hover. */
export function hunkCard(item: Item, language: string): string {
  if (item.status === 'stale') return `$(history) **Out of date.** ${escape(item.reason ?? '')}`;
  if (item.newText === '') return `**Selfloop wants to remove ${plural(item.removed, 'line')}.**`;
  const shown = excerpt(item.newText);
  const title =
    item.removed === 0
      ? `add ${plural(item.added, 'line')}`
      : `replace ${plural(item.removed, 'line')} by ${countLines(item.newText)}`;
  const more = shown.more > 0 ? `\n\n*and ${plural(shown.more, 'more line')}: see the diff*` : '';
  return `**Selfloop wants to ${title}:**\n\n${fenced(shown.text, language.replace(/[^\w+#-]/g, ''))}${more}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith('.') ? '' : '.');
}
