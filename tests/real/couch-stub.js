// CouchDB's protocol from npm: express-pouchdb over databases in memory, behind what it lacks of a server of its own.
//
// Whoever has no password, or no session that one opened, is told so here and gets no further: an anonymous write
// kills or wedges express-pouchdb. What is levelled out besides: If-Match, the time limit of a longpoll, and content types.
// Not levelled: its sequences are numbers, and it takes any `since`; views are reduced anew at each query.
'use strict';

const crypto = require('crypto');
const express = require('express');
const PouchDB = require('pouchdb-core')
  .plugin(require('pouchdb-adapter-memory'))
  .plugin(require('pouchdb-mapreduce'))
  .plugin(require('pouchdb-find'))
  .plugin(require('pouchdb-replication'))
  .defaults({adapter: 'memory'});

const ADMIN = process.env.COUCH_USER;
const PASSWORDS = new Map([[ADMIN, process.env.COUCH_PASSWORD], [process.env.COUCH_MEMBER, process.env.COUCH_PASSWORD]]);
const SESSION_MS = 1000 * Number(process.env.COUCH_SESSION_S || 600);
const LONGPOLL_MS = 60000;
const sessions = new Map();

process.on('unhandledRejection', error => console.error('unhandled rejection:', error));
process.on('SIGTERM', () => process.exit(0));

function isLogin(name, password) {
  const wanted = Buffer.from(String(PASSWORDS.get(name) || ''));
  const given = Buffer.from(String(password || ''));
  return PASSWORDS.has(name) && wanted.length === given.length && crypto.timingSafeEqual(wanted, given);
}

function userOf(request) {
  const [scheme, login] = (request.headers.authorization || '').split(' ');
  if (scheme === 'Basic') {
    const text = Buffer.from(login || '', 'base64').toString();
    const colon = text.indexOf(':');
    return isLogin(text.slice(0, colon), text.slice(colon + 1)) ? text.slice(0, colon) : undefined;
  }
  const cookie = /(?:^|;\s*)AuthSession=([^;]+)/.exec(request.headers.cookie || '');
  const session = cookie && sessions.get(cookie[1]);
  return session && session.until > Date.now() ? session.name : undefined;
}

const refuse = (response, status, error, reason) => response.status(status).json({error, reason});
const WRONG = ['unauthorized', 'Name or password is incorrect.'];

const app = express();
app.disable('x-powered-by');
app.set('etag', false);
app.enable('case sensitive routing');

app.get('/_up', (request, response) => response.json({status: 'ok', seeds: {}}));

app.post('/_session', express.json(), express.urlencoded({extended: false}), (request, response) => {
  const {name, password} = request.body || {};
  if (!isLogin(name, password)) return refuse(response, 401, ...WRONG);
  const cookie = crypto.randomBytes(24).toString('base64url');
  sessions.set(cookie, {name, until: Date.now() + SESSION_MS});
  response.set('Set-Cookie', `AuthSession=${cookie}; Version=1; Max-Age=${SESSION_MS / 1000}; Path=/; HttpOnly`);
  response.json({ok: true, name, roles: name === ADMIN ? ['_admin'] : []});
});

app.use((request, response, next) => {
  const user = userOf(request);
  if (user === undefined) return refuse(response, 401, ...WRONG);
  request.user = user;
  if (/^\/[^/]+\/_design\/[^/]+$/.test(request.path) && !['GET', 'HEAD'].includes(request.method) && user !== ADMIN) {
    return refuse(response, 403, 'forbidden', 'You are not a db or server admin.');
  }
  next();
});

app.get('/', (request, response) => response.json({couchdb: 'Welcome', version: '3.5.0', vendor: {name: 'pouchdb'}}));
app.get('/_session', (request, response) => response.json({ok: true, userCtx: {name: request.user, roles: []}}));
// Not CouchDB's: for tests that want a session to be over.
app.post('/_end_sessions', (request, response) => {
  sessions.clear();
  response.json({ok: true});
});

app.use((request, response, next) => {
  const revision = request.headers['if-match'];
  if (revision && !request.query.rev) request.query.rev = revision.replace(/"/g, '');
  delete request.headers['if-match'];
  // It says text/plain to who does not ask for JSON, as browsers of old wanted it.
  request.headers.accept = 'application/json';
  next();
});

app.get('/:db/_changes', async (request, response, next) => {
  if (request.query.feed !== 'longpoll') return next();
  let seq = request.query.since;
  if (seq === 'now') seq = request.query.since = String((await new PouchDB(request.params.db).info()).update_seq);
  // The connection ends with the answer, and with the connection its wait for a change.
  response.set('Connection', 'close');
  const timer = setTimeout(() => {
    if (!response.writableEnded) response.end(`${response.headersSent ? '' : '{"results":['}],"last_seq":${seq || 0}}\n`);
  }, Math.min(Number(request.query.timeout || LONGPOLL_MS), LONGPOLL_MS));
  response.on('close', () => clearTimeout(timer));
  next();
});

app.use(require('express-pouchdb')(PouchDB, {
  inMemoryConfig: true,
  mode: 'minimumForPouchDB',
  overrideMode: {include: ['routes/find', 'routes/ddoc-info'], exclude: ['compression']},
}));

const server = app.listen(Number(process.env.PORT), '127.0.0.1');
server.keepAliveTimeout = 65000;
