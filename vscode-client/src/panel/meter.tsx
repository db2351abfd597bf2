// How full the model's context is, and what the session has cost.

import { dollars, tokens } from './text';
import type { UsageUpdate } from '../protocol';

export function Meter({ usage }: { usage: UsageUpdate | undefined }) {
  if (usage === undefined) return null;
  const share = usage.contextLimit > 0 ? Math.min(1, usage.contextTokens / usage.contextLimit) : 0;
  const percent = Math.round(share * 100);
  const cost = usage.costUsd === undefined ? '' : dollars(usage.costUsd);
  const words =
    `Context: ${tokens(usage.contextTokens)} of ${tokens(usage.contextLimit)} tokens (${percent} %).\n` +
    `This session: ${tokens(usage.inputTokens)} tokens in (${tokens(usage.cachedTokens)} cached), ${tokens(usage.outputTokens)} out` +
    `${cost ? `, ${cost}` : ''}.`;
  const level = share >= 0.9 ? 'full' : share >= 0.75 ? 'high' : '';
  return (
    <span
      class={`meter ${level}`}
      role="meter"
      aria-label="Context used"
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      aria-valuetext={words}
      title={words}
    >
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="6" />
        <circle
          class="part"
          cx="8"
          cy="8"
          r="6"
          pathLength="100"
          stroke-dasharray={`${Math.max(percent, 2)} 100`}
          transform="rotate(-90 8 8)"
        />
      </svg>
      <span>{percent}%</span>
      {cost && <span class="cost">{cost}</span>}
    </span>
  );
}
