import type { Config } from './config.ts';
import type { App } from './context.ts';
import { unavailable } from './errors.ts';

/** What an operator can switch off while all else goes on. */
export type KillSwitch = Config['KILL_SWITCHES'][number];

const retryAfterS = 60;

/** @throws ApiError 503 FEATURE_TEMPORARILY_DISABLED */
export function requireSwitchedOn({ config }: App, feature: KillSwitch): void {
  if (!config.KILL_SWITCHES.includes(feature)) return;
  throw unavailable(
    'FEATURE_TEMPORARILY_DISABLED',
    'The operator of this server has switched this off for a while. Repeat the request later.',
    retryAfterS,
  );
}
