export interface DeviceInfo {
  user_agent: string | null;
  ip_address: string | null;
  platform: string;
  browser: string;
}

// The first that fits. Tablets and phones name the desktop systems they descend from, and nearly every browser names
// Safari and Chrome, so the most particular come first.
const platforms: [string, RegExp][] = [
  ['tablet', /ipad|tablet(?! pc)|playbook|silk(?!.*mobile)|android(?!.*mobile)/],
  ['mobile', /iphone|ipod|mobile|android|windows phone/],
  ['windows', /windows/],
  ['mac', /macintosh|mac os/],
  ['linux', /linux|x11|cros/],
];
const browsers: [string, RegExp][] = [
  ['edge', /\bedg(?:e|a|ios)?\//],
  ['unknown', /\b(?:opr|opera|samsungbrowser|vivaldi|yabrowser)\b/],
  ['firefox', /\b(?:firefox|fxios)\//],
  ['chrome', /(?:chrome|\bcrios|chromium)\//],
  ['safari', /\bsafari\//],
];

/** What the user agent's own words say of a device; they prove nothing. */
export function deviceOf(userAgent: string | undefined, ip: string | undefined): DeviceInfo {
  const text = (userAgent ?? '').slice(0, 400);
  const words = text.toLowerCase();
  const named = (kinds: [string, RegExp][]) => kinds.find(([, form]) => form.test(words))?.[0] ?? 'unknown';
  return {
    user_agent: text || null,
    ip_address: ip ?? null,
    platform: named(platforms),
    browser: named(browsers),
  };
}
