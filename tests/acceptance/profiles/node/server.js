const http = require('http');
const numbers = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => require(`./${n}.js`));
const server = http.createServer((request, response) => {
  response.end(`served ${numbers[Number(request.url.slice(1))]}\n`);
});
process.on('SIGTERM', () => server.close(() => process.exit(0)));
server.listen(3000);
