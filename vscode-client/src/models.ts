// What the model page knows about endpoints and models: plain functions, no editor.

import type { ModelInfo } from './protocol';

/** A context below this is too small for most work on code. */
export const SMALL_CONTEXT_TOKENS = 16_000;

/** An endpoint in the OpenAI format. */
export interface Endpoint {
  name: string;
  baseUrl: string;
}

/** Endpoints that are offered by name. */
export const KNOWN_ENDPOINTS: readonly Endpoint[] = [
  { name: 'OpenRouter', baseUrl: 'https://openrouter.ai/api/v1' },
  { name: 'OpenAI', baseUrl: 'https://api.openai.com/v1' },
  { name: 'Anthropic', baseUrl: 'https://api.anthropic.com/v1' },
];

/** Return `scheme://host[:port]` of an http or https address without a user name; undefined: it is none. */
export function originOf(url: string): string | undefined {
  try {
    const parsed = new URL(url.trim());
    const plain = ['http:', 'https:'].includes(parsed.protocol) && !parsed.username && !parsed.password;
    return plain && parsed.hostname ? parsed.origin : undefined;
  } catch {
    return undefined;
  }
}

/** Return an endpoint's address without the slash at its end; undefined: it is no address. */
export function baseUrlOf(given: string): string | undefined {
  const text = given
    .trim()
    .replace(/\/(chat\/completions|models)\/?$/, '')
    .replace(/\/+$/, '');
  return originOf(text) === undefined ? undefined : text;
}

/** Tell whether an origin is on this machine or its own network, where models seldom need a key. */
export function isLocal(origin: string): boolean {
  const host = new URL(origin).hostname.replace(/^\[|\]$/g, '');
  return (
    /^(127|10)\.|^192\.168\.|^169\.254\.|^172\.(1[6-9]|2\d|3[01])\./.test(host) ||
    /^(::1$|f[cd][0-9a-f]{2}:|fe80:)/.test(host) ||
    (!host.includes('.') && !host.includes(':')) ||
    /\.(local|localhost|internal|lan|home\.arpa)$/.test(host)
  );
}

/** Return what the user should know before choosing a model, in plain sentences. */
export function warnings(model: Pick<ModelInfo, 'tools' | 'contextTokens'>): string[] {
  const said: string[] = [];
  if (model.tools === false) said.push('It has no tool calling: it works by the text protocol, less well.');
  if (model.contextTokens !== undefined && model.contextTokens < SMALL_CONTEXT_TOKENS) {
    said.push(`Its context of ${model.contextTokens.toLocaleString('en')} tokens is small for work on code.`);
  }
  return said;
}

/** What may name a model more strongly than a choice on the model page does. */
export interface Outranking {
  model?: string | undefined;
  baseUrl?: string | undefined;
  /** How the user knows it: `The setting selfloop.model`, `The environment variable MODEL_NAME`. */
  modelBy: string;
  baseUrlBy: string;
}

/** Say which setting or variable will be used instead of a choice from the next start on; undefined: none. */
export function outranked(model: string, baseUrl: string | undefined, by: readonly Outranking[]): string | undefined {
  for (const one of by) {
    if (one.model && one.model !== model) {
      return `${one.modelBy} says ${one.model}, and is used again instead of ${model} from the server's next start on; empty it to keep your choice.`;
    }
    if (one.baseUrl && baseUrl && baseUrlOf(one.baseUrl) !== baseUrlOf(baseUrl)) {
      return `${one.baseUrlBy} says ${one.baseUrl}, and is used again instead of ${baseUrl} from the server's next start on; empty it to keep your choice.`;
    }
  }
  return undefined;
}
