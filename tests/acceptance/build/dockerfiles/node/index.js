const ms = require("ms");
const pad = require("left-pad");
console.log(pad(String(ms("2 days")), 12, "."), process.env.NODE_ENV, process.getuid());
