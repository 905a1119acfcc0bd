// `npm start`: installs when needed, then `manushya serve`; arguments are passed on.
import { launch } from './launch.mjs';

launch(['serve', ...process.argv.slice(2)]);
