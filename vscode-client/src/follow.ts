// Follows one turn of a session to its end, for whoever shows it elsewhere than in the panel.
//
// Invariant: it settles, whatever becomes of the turn, the server or the user's patience.

import type * as vscode from 'vscode';
import type { SessionPromptResult, State, Update, UpdateEnvelope } from './protocol';
import { RequestError, type Server } from './server';
import { TurnFilter } from './turn_filter';

/**
 * Send a prompt and follow its turn to the end; cancelling the token cancels the turn.
 *
 * @param send sends the prompt, to the session that is followed.
 * @param onUpdate told every update of the turn, in order.
 * @throws RequestError where the prompt is refused, or the server goes away for good.
 */
export function followTurn(
  server: Server,
  sessionId: string,
  send: () => Promise<Pick<SessionPromptResult, 'turnId' | 'delivery'>>,
  onUpdate: (update: Update) => void,
  token: vscode.CancellationToken,
): Promise<State> {
  return new Promise((resolve, reject) => {
    const subscriptions: vscode.Disposable[] = [];
    const early: UpdateEnvelope[] = [];
    let filter: TurnFilter | undefined;
    let done = false;
    const settle = (act: () => void): void => {
      if (done) return;
      done = true;
      for (const one of subscriptions) one.dispose();
      act();
    };
    const take = (envelope: UpdateEnvelope): void => {
      if (done) return;
      if (filter === undefined) {
        early.push(envelope);
        return;
      }
      const { update, end } = filter.take(envelope);
      if (update !== undefined) onUpdate(update);
      if (end !== undefined) settle(() => resolve(end));
    };
    const cancel = (): void => {
      server
        .request('selfloop/session/cancel', { sessionId })
        .catch((error: unknown) => settle(() => reject(error as Error)));
    };
    subscriptions.push(
      server.onUpdate((envelope) => {
        if (envelope.sessionId === sessionId) take(envelope);
      }),
      server.onDidChangeState((state) => {
        if (state.kind === 'running' || state.kind === 'starting') return;
        const why = 'reason' in state ? state.reason : 'The server was stopped.';
        settle(() => reject(new RequestError(`${why} The session keeps what was done so far.`, -32803, 'server')));
      }),
      token.onCancellationRequested(() => {
        if (filter !== undefined) cancel();
      }),
    );
    send().then(
      ({ turnId, delivery }) => {
        filter = new TurnFilter(turnId, delivery);
        for (const envelope of early.splice(0)) take(envelope);
        if (token.isCancellationRequested) cancel();
      },
      (error: unknown) => settle(() => reject(error as Error)),
    );
  });
}
