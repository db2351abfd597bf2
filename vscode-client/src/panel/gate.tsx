// A gate's card: what is asked, what is known about it, and the ways to answer.
//
// Invariant: a command is shown exactly as it would run, with what cannot be seen written out, and whole; an answer
// names the gate and the option that the user pressed, nothing else.

import { memo } from 'preact/compat';
import { useEffect, useState } from 'preact/hooks';
import { post } from './host';
import { Icon } from './icon';
import { count, nameOf, visible } from './text';
import type { CardFile, Evidence, GateCard as Card, GateInfo, GateOption } from './messages';
import type { GateFlag } from '../protocol';

export const GateCard = memo(function GateCard({ gate, card }: { gate: GateInfo; card: Card | undefined }) {
  useEffect(() => {
    if (gate.state === 'open') post({ type: 'card', gateId: gate.gateId });
  }, [gate]);
  if (gate.state !== 'open') return <Resolved gate={gate} />;
  return gate.subject['type'] === 'command' ? <CommandGate gate={gate} /> : <ChangesGate gate={gate} card={card} />;
});

/** A gate that needs no answer any more: one line. */
function Resolved({ gate }: { gate: GateInfo }) {
  const chosen = gate.options.find((option) => option.optionId === gate.resolvedBy);
  const approved = chosen === undefined ? gate.resolvedBy === 'mixed' : chosen.kind.startsWith('allow');
  const word =
    gate.state !== 'resolved'
      ? ENDED[gate.state]
      : gate.resolvedBy === 'mixed'
        ? 'Partly approved'
        : approved
          ? 'Approved'
          : 'Rejected';
  const undoable = gate.subject['type'] === 'changes' && gate.state === 'resolved' && approved;
  return (
    <div class="gate-line">
      <Icon name={gate.state !== 'resolved' ? 'circle-slash' : approved ? 'pass' : 'circle-slash'} />
      <span class="title" title={visible(gate.title)}>
        <b>{word}</b> {visible(gate.title)}
      </span>
      {undoable && (
        <button type="button" class="link" onClick={() => post({ type: 'undo', gateId: gate.gateId })}>
          Undo this change
        </button>
      )}
    </div>
  );
}

const ENDED = { open: '', resolved: '', stale: 'Out of date', expired: 'Expired', cancelled: 'Cancelled' };

function ChangesGate({ gate, card }: { gate: GateInfo; card: Card | undefined }) {
  const files = card?.files ?? [];
  const pending = files.reduce((sum, file) => sum + file.pending.length, 0);
  const stale = files.reduce((sum, file) => sum + file.stale, 0);
  const added = card?.card?.added ?? files.reduce((sum, file) => sum + file.added, 0);
  const removed = card?.card?.removed ?? files.reduce((sum, file) => sum + file.removed, 0);
  const approve = gate.options.find((option) => option.kind === 'allow_once');
  const reject = gate.options.find((option) => option.kind === 'reject_once');
  const title = pending
    ? `${count(pending, 'change')} in ${count(files.filter((file) => file.pending.length > 0).length, 'file')}`
    : 'Proposal';
  return (
    <section class={`gate risk-${gate.risk}`} aria-label={`Proposal: ${title}`}>
      <header>
        <Icon name="git-pull-request" />
        <b class="title">{title}</b>
        <Size added={added} removed={removed} />
        {gate.risk === 'high' && <span class="badge danger">high risk</span>}
      </header>
      {card?.card?.request && (
        <p class="request" title={visible(card.card.request)}>
          {visible(card.card.request)}
        </p>
      )}
      {(card?.card?.flags.length ?? 0) > 0 && <Flags flags={card?.card?.flags ?? []} />}
      <ul class="files">
        {files.map((file) => (
          <FileRow
            key={file.uri}
            gate={gate}
            digest={card?.digest ?? gate.digest}
            file={file}
            approve={approve}
            reject={reject}
          />
        ))}
      </ul>
      {card !== undefined && <Proof evidence={card.evidence} isolation={card.card?.isolation} />}
      {stale > 0 && (
        <p class="stale">
          {count(stale, 'change is', 'changes are')} out of date: the text there has moved on. Review to reject or to
          ask again.
        </p>
      )}
      <div class="buttons">
        <button type="button" class="primary" onClick={() => post({ type: 'review', gateId: gate.gateId })}>
          Review
        </button>
        {approve && (
          <button type="button" disabled={pending === 0} onClick={() => approveShown(gate, approve, files)}>
            Approve all
          </button>
        )}
        {reject && (
          <button type="button" onClick={() => answer(gate, reject, card?.digest)}>
            Reject all
          </button>
        )}
      </div>
    </section>
  );
}

interface FileRowProps {
  gate: GateInfo;
  digest: string;
  file: CardFile;
  approve: GateOption | undefined;
  reject: GateOption | undefined;
}

function FileRow({ gate, digest, file, approve, reject }: FileRowProps) {
  const { name, folder } = nameOf(file.path);
  const done = file.pending.length === 0;
  const word = { create: 'new', delete: 'deleted', rename: 'renamed', modify: '' }[file.operation];
  const decide = (option: GateOption): void =>
    post({ type: 'resolve', gateId: gate.gateId, optionId: option.optionId, digest, hunks: [...file.pending] });
  return (
    <li class={done ? 'file done' : 'file'}>
      <button
        type="button"
        class="row"
        title={visible(file.path)}
        onClick={() => post({ type: 'review', gateId: gate.gateId, uri: file.uri })}
      >
        <span class="name">{visible(name)}</span>
        <span class="folder">{visible(folder)}</span>
        {word && <span class="badge">{word}</span>}
        {file.stale > 0 && <span class="badge warn">out of date</span>}
        {done && file.stale === 0 && (
          <span class="badge">{file.rejected === 0 ? 'approved' : file.approved === 0 ? 'rejected' : 'decided'}</span>
        )}
        {!done && <Size added={file.added} removed={file.removed} />}
      </button>
      {!done && approve && (
        <button
          type="button"
          class="icon"
          title="Approve this file"
          aria-label={`Approve ${name}`}
          onClick={() => decide(approve)}
        >
          <Icon name="check" />
        </button>
      )}
      {!done && reject && (
        <button
          type="button"
          class="icon"
          title="Reject this file"
          aria-label={`Reject ${name}`}
          onClick={() => decide(reject)}
        >
          <Icon name="close" />
        </button>
      )}
    </li>
  );
}

export function Size({ added, removed }: { added: number; removed: number }) {
  return (
    <span class="size" role="img" aria-label={`${count(added, 'line')} added, ${removed} removed`}>
      {(added > 0 || removed === 0) && <span class="plus">+{added}</span>}{' '}
      {removed > 0 && <span class="minus">−{removed}</span>}
    </span>
  );
}

const FLAGS: Record<GateFlag['kind'], string> = {
  deletion: 'deletion',
  dependency: 'dependencies',
  ci: 'CI',
  protected: 'protected path',
  hidden: 'hidden characters',
  binary: 'binary',
  executable: 'executable',
  link: 'symbolic link',
};

function Flags({ flags }: { flags: readonly GateFlag[] }) {
  const kinds = [...new Set(flags.map((flag) => flag.kind))];
  return (
    <details class="flags">
      <summary>
        <Icon name="warning" />
        {kinds.map((kind) => (
          <span key={kind} class="badge warn">
            {FLAGS[kind]}
          </span>
        ))}
        <i class="codicon codicon-chevron-right twist" aria-hidden="true" />
      </summary>
      <ul>
        {flags.map((flag, place) => (
          <li key={place}>{visible(flag.text)}</li>
        ))}
      </ul>
    </details>
  );
}

const FENCES = {
  process: 'Commands ran jailed, without network.',
  changes: 'Commands ran without a jail, in a copy of the folder.',
  none: 'Commands ran without isolation.',
};

function Proof({
  evidence,
  isolation,
}: {
  evidence: readonly Evidence[];
  isolation: 'none' | 'changes' | 'process' | undefined;
}) {
  const [all, setAll] = useState(false);
  const shown = all ? evidence : evidence.slice(-3);
  const fence = isolation === undefined ? '' : FENCES[isolation];
  return (
    <div class="proof">
      {evidence.length === 0 && (
        <p class="untested">
          <Icon name="circle-outline" />{' '}
          <span>
            <b>Not tested.</b> No command ran for this.
          </span>
        </p>
      )}
      {shown.map((one, place) => {
        const good = one.exitCode === 0;
        const word = one.exitCode === undefined ? 'did not end' : `exit ${one.exitCode}`;
        return (
          <p key={place} class={good ? 'good' : 'bad'}>
            <Icon name={good ? 'pass' : 'error'} /> <code title={visible(one.command)}>{visible(one.command)}</code>{' '}
            <span class="exit">{word}</span>
          </p>
        );
      })}
      {evidence.length > shown.length && (
        <button type="button" class="link" onClick={() => setAll(true)}>
          and {count(evidence.length - shown.length, 'command')} before
        </button>
      )}
      {fence && evidence.length > 0 && (
        <p class="fence">
          <Icon name="shield" /> <span>{fence}</span>
        </p>
      )}
    </div>
  );
}

function CommandGate({ gate }: { gate: GateInfo }) {
  const { command, cwd, network, isolation, reason } = gate.subject as {
    command?: string;
    cwd?: string;
    network?: boolean;
    isolation?: string;
    reason?: string;
  };
  const always = gate.options.find((option) => option.kind === 'allow_always' && option.rule !== undefined);
  const text = visible(command ?? gate.title);
  return (
    <section class={`gate command risk-${gate.risk}`} aria-label={`Command waits for you: ${text}`}>
      <header>
        <Icon name="terminal" />
        <b class="title">Run this command?</b>
        {gate.risk === 'high' && <span class="badge danger">high risk</span>}
      </header>
      <pre class="exact" tabIndex={0} aria-label="The exact command">
        {text}
      </pre>
      <dl>
        {cwd && (
          <>
            <dt>Folder</dt>
            <dd title={visible(cwd)}>{visible(pathOf(cwd))}</dd>
          </>
        )}
        <dt>Network</dt>
        <dd class={network || isolation !== 'process' ? 'warn' : ''}>
          {network ? 'yes' : isolation === 'process' ? 'no' : 'not asked for, but not blocked'}
        </dd>
        <dt>Isolation</dt>
        <dd class={isolation === 'process' ? '' : 'warn'}>
          {isolation === 'process' ? 'jail' : 'no jail: in a copy of the folder, with your rights'}
        </dd>
        {reason && (
          <>
            <dt>Why</dt>
            <dd>{visible(reason)}</dd>
          </>
        )}
      </dl>
      {always?.rule && (
        <p class="rule">
          “{always.name}” would remember: <code>{visible(always.rule)}</code>
        </p>
      )}
      <div class="buttons">
        {gate.options.map((option, place) => (
          <button
            key={option.optionId}
            type="button"
            class={place === 0 ? 'primary' : ''}
            title={option.rule}
            onClick={() => answer(gate, option)}
          >
            {option.name}
          </button>
        ))}
      </div>
    </section>
  );
}

function pathOf(uri: string): string {
  const { name, folder } = nameOf(uri);
  return `${folder}/${name}`.replace(/^\/\//, '/');
}

/** Approves what the card shows: a change that came meanwhile is not among it. */
function approveShown(gate: GateInfo, option: GateOption, files: readonly CardFile[]): void {
  post({
    type: 'resolve',
    gateId: gate.gateId,
    optionId: option.optionId,
    digest: gate.digest,
    hunks: files.flatMap((file) => file.pending),
  });
}

function answer(gate: GateInfo, option: GateOption, digest = gate.digest): void {
  post({ type: 'resolve', gateId: gate.gateId, optionId: option.optionId, digest });
}
