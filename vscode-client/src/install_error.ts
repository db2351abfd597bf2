// Why the server cannot be used as it is installed: one plain sentence, and the kind of thing that would help.

/** `absent`: never installed here; the other kinds name what is wrong. */
export type InstallTrouble =
  'absent' | 'cancelled' | 'python' | 'venv' | 'network' | 'disk' | 'wheel' | 'setting' | 'platform' | 'failed';

/** Raised where the server cannot be installed or found. `message` is one plain sentence for the user. */
export class InstallError extends Error {
  constructor(
    readonly trouble: InstallTrouble,
    message: string,
  ) {
    super(message);
  }
}

/** Say what a failed step of the installation means, from the end of what it printed. */
export function explain(step: string, output: string): InstallError {
  if (/No space left on device|ENOSPC|Disk quota exceeded/i.test(output)) {
    return new InstallError(
      'disk',
      'The disk is full, so the server was not installed; make about 600 MB free, then try again.',
    );
  }
  const unreachable =
    /NewConnectionError|ConnectTimeoutError|ReadTimeoutError|Temporary failure in name resolution|ProxyError|Network is unreachable|SSLError|Could not fetch URL|getaddrinfo|Max retries exceeded/i;
  if (unreachable.test(output)) {
    return new InstallError(
      'network',
      "pip could not reach its package index, so the server was not installed; check the network, or pip's own " +
        'settings if you use a mirror or a proxy, then try again.',
    );
  }
  if (/ensurepip is not (available|disabled)|No module named '?(venv|ensurepip)/i.test(output)) {
    return new InstallError(
      'venv',
      'This Python cannot make environments, so the server was not installed; on Debian and Ubuntu run ' +
        '"sudo apt install python3-venv", then try again.',
    );
  }
  if (/No matching distribution found for (\S+)/.test(output)) {
    const name = /No matching distribution found for (\S+)/.exec(output)?.[1] ?? 'a package';
    return new InstallError(
      'network',
      `pip found no ${name} that fits this Python and platform, so the server was not installed; the output channel ` +
        'has what it said.',
    );
  }
  return new InstallError(
    'failed',
    `${step} failed, so the server was not installed; the output channel has what it said.`,
  );
}
