// How loops, their rounds and what they spend are put into words and numbers.
//
// Invariant: pure functions; what time it is, is an argument. Text of others is passed on as it stands: whoever shows
// it escapes it for where it is shown.

import type { LoopInfo, RoundReport, RunUpdate, SpendRow } from './protocol';

export type Level = LoopInfo['level'];
export type Phase = RunUpdate['phase'];

/** The levels, lowest first, and what each lets a loop do. */
export const LEVELS: readonly { level: Level; short: string; name: string; meaning: string }[] = [
  {
    level: 'L1-report',
    short: 'L1',
    name: 'Report',
    meaning: 'Looks and reports. It changes no file and sends nothing.',
  },
  {
    level: 'L2-assisted',
    short: 'L2',
    name: 'Assisted',
    meaning: 'Makes a change or a text, and you approve each one before it takes effect.',
  },
  {
    level: 'L3-unattended',
    short: 'L3',
    name: 'Unattended',
    meaning: 'Carries out what you have allowed, once a checker has verified it; asks about the rest.',
  },
];

/** What a running round is doing. */
export const PHASES: Readonly<Partial<Record<Phase, string>>> = {
  recall: 'Remembering',
  sandbox: 'Preparing',
  make: 'Making',
  check: 'Checking',
  gate: 'Deciding',
  act: 'Acting',
  record: 'Recording',
  done: 'Done',
};
/** The steps of an evolution, which is a round with steps of its own. */
export const EVOLUTION_PHASES: Readonly<Partial<Record<Phase, string>>> = {
  reflect: 'Learning',
  evolve: 'Changing',
  refine: 'Mending',
  verify: 'Judging',
  docs: 'Documenting',
  gate: 'Deciding',
  done: 'Done',
};

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Return a level's short name, `L2`. */
export function shortLevel(level: Level): string {
  return level.slice(0, 2);
}

/** Tell whether one level gives more authority than another. */
export function isAbove(one: Level, other: Level): boolean {
  return rank(one) > rank(other);
}

function rank(level: Level): number {
  return LEVELS.findIndex((one) => one.level === level);
}

/** Return when something is due: `in 5 min`, `today 18:00`, `tomorrow 09:00`, `Mon 09:00`, `14 Mar 09:00`. */
export function whenDue(iso: string | undefined, now: Date): string | undefined {
  const due = moment(iso);
  if (due === undefined) return undefined;
  const away = due.getTime() - now.getTime();
  if (away <= 0) return 'due now';
  if (away < HOUR_MS) return `in ${Math.ceil(away / MINUTE_MS)} min`;
  const days = dayNumber(due) - dayNumber(now);
  const day = days === 0 ? 'today' : days === 1 ? 'tomorrow' : days < 7 ? weekday(due) : dayOfMonth(due);
  return `${day} ${clock(due)}`;
}

/** Return how long ago something was: `just now`, `5 min ago`, `3 h ago`, `yesterday 18:00`, `14 Mar`. */
export function whenWas(iso: string | undefined, now: Date): string | undefined {
  const was = moment(iso);
  if (was === undefined) return undefined;
  const ago = now.getTime() - was.getTime();
  if (ago < MINUTE_MS) return 'just now';
  if (ago < HOUR_MS) return `${Math.floor(ago / MINUTE_MS)} min ago`;
  const days = dayNumber(now) - dayNumber(was);
  if (days === 0) return `${Math.floor(ago / HOUR_MS)} h ago`;
  return days === 1 ? `yesterday ${clock(was)}` : days < 7 ? `${weekday(was)} ${clock(was)}` : dayOfMonth(was);
}

/** Return how long a round took: `4 s`, `1 min 5 s`, `2 h 3 min`; undefined where a time cannot be read. */
export function duration(from: string, to: string): string | undefined {
  const [begin, end] = [moment(from), moment(to)];
  if (begin === undefined || end === undefined) return undefined;
  const seconds = Math.max(0, Math.round((end.getTime() - begin.getTime()) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** Return a number of tokens in three digits at most: `950`, `12k`, `1.2M`. */
export function tokens(count: number): string {
  if (count < 1000) return String(count);
  // From here on it would round up to four digits.
  const [value, unit] = count < 999_500 ? [count / 1000, 'k'] : [count / 1_000_000, 'M'];
  return `${value < 9.95 ? value.toFixed(1).replace(/\.0$/, '') : Math.round(value)}${unit}`;
}

/** Return an amount of money: two digits, and four below ten cents, where two would say too little. */
export function money(usd: number): string {
  return `$${usd.toFixed(usd > 0 && usd < 0.1 ? 4 : 2)}`;
}

/** Return a round's outcome in a few words. */
export function outcome(report: RoundReport): string {
  const { type, limit } = report.outcome;
  switch (type) {
    case 'reported':
      return 'reported';
    case 'proceeded':
      return 'carried out';
    case 'escalated':
      return 'asked you';
    case 'budget-exhausted':
      return limit === undefined ? 'out of budget' : `out of budget (${limit.replace('-day', ' of the day')})`;
    case 'failed':
      return 'failed';
  }
}

/** What was spent; `costUsd` is absent where nobody knows the price. */
export interface Spent {
  tokens: number;
  costUsd?: number;
}

/** Return what a loop has spent in these rows. */
export function spentBy(rows: readonly SpendRow[], loopId: string): Spent {
  return sum(rows.filter((row) => row.loopId === loopId));
}

function sum(rows: readonly SpendRow[]): Spent {
  const total: Spent = { tokens: 0 };
  for (const row of rows) {
    total.tokens += row.inputTokens + row.outputTokens;
    if (row.costUsd !== undefined) total.costUsd = (total.costUsd ?? 0) + row.costUsd;
  }
  return total;
}

/** Return what was spent as people read it: `12k tokens, $0.31`. */
export function spending({ tokens: count, costUsd }: Spent): string {
  return costUsd === undefined ? `${tokens(count)} tokens` : `${tokens(count)} tokens, ${money(costUsd)}`;
}

/** Return what stands behind a loop's name: level, cadence, next run, last outcome, spend of today. */
export function describe(loop: LoopInfo, today: Spent, now: Date, phase?: Phase): string {
  const last = loop.lastRun;
  const parts = [
    shortLevel(loop.level),
    loop.enabled ? loop.cadence : 'off',
    phase !== undefined ? `${(PHASES[phase] ?? EVOLUTION_PHASES[phase] ?? phase).toLowerCase()}…` : '',
    phase === undefined && loop.enabled ? whenDue(loop.nextAt, now) : '',
    phase === undefined && last !== undefined ? `${outcome(last)} ${whenWas(last.endedAt, now) ?? ''}`.trim() : '',
    today.tokens > 0 ? `${spending(today)} today` : '',
  ];
  return parts.filter(Boolean).join(' · ');
}

/** One colour of the chart: a loop, or all chats together (`loopId` is absent). */
export interface Series {
  loopId?: string;
  /** One for each day. */
  tokens: number[];
  total: Spent;
}

/** What the chart shows: days, oldest first, and who spent how much on each. */
export interface SpendChart {
  days: string[];
  /** Biggest spender first; the chats last. */
  series: Series[];
  /** The most that was spent on one day, in tokens. */
  most: number;
}

/** Arrange rows of spend for a chart of the last days up to the one of `now`; rows of other days are left out. */
export function chartOf(rows: readonly SpendRow[], count: number, now: Date): SpendChart {
  const days = Array.from({ length: count }, (_, index) => {
    // At noon, so that no hour that is skipped or comes twice moves it to another day.
    const day = new Date(now.getFullYear(), now.getMonth(), now.getDate() - (count - 1 - index), 12);
    return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
  });
  const shown = rows.filter((row) => days.includes(row.day));
  const names = new Set(shown.map((row) => row.loopId));
  const series = [...names].map((loopId): Series => {
    const own = shown.filter((row) => row.loopId === loopId);
    const perDay = days.map((day) => sum(own.filter((row) => row.day === day)).tokens);
    return { ...(loopId === undefined ? {} : { loopId }), tokens: perDay, total: sum(own) };
  });
  series.sort(
    (a, b) => Number(a.loopId === undefined) - Number(b.loopId === undefined) || b.total.tokens - a.total.tokens,
  );
  const most = Math.max(0, ...days.map((_, at) => series.reduce((total, one) => total + (one.tokens[at] ?? 0), 0)));
  return { days, series, most };
}

function moment(iso: string | undefined): Date | undefined {
  if (iso === undefined) return undefined;
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? undefined : time;
}

/** The number of the day on the user's calendar, so that days can be subtracted across daylight saving. */
function dayNumber(date: Date): number {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / DAY_MS;
}

function clock(date: Date): string {
  return `${two(date.getHours())}:${two(date.getMinutes())}`;
}

function weekday(date: Date): string {
  return date.toLocaleDateString('en', { weekday: 'short' });
}

function dayOfMonth(date: Date): string {
  return date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
