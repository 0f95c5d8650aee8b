// Loaded into NNI 3.0's manager before its own code (NODE_OPTIONS=--require), by manager.py;
// environment.py refuses any other version and any changed file. NNI's files stay as they are.
// What it changes:
//
// 1. The server listens where it is told (loopback), not at every address of the machine.
// 2. A request needs an allowed Host and Origin (else 403: no DNS rebinding, no foreign pages) and
//    the secret path (else 404). What starts programs or changes the study from outside is closed.
// 3. Parameters belong to a trial by its id. NNI hands them out in the order in which trials happen
//    to ask, and shows them in the order of submission (microsoft/nni#5726).
// 4. A trial that cannot be started is tried again once a second, not in a tight loop (#5574).
// 5. Trials of an experiment that goes on get new numbers; NNI would count from those that were cut
//    off alone.
// 6. A trial that the assessor ends is EARLY_STOPPED: the flag is set before the kill, not after.
// 7. The tuner has two minutes to connect, not ten seconds: on a busy machine it needs them.
// 8. On other machines the keeper is guarded, too (keeper_guard.js), and nothing is installed.
'use strict';

const fs = require('fs');
const http = require('http');
const Module = require('module');
const net = require('net');
const os = require('os');
const path = require('path');
const { setTimeout: sleep } = require('timers/promises');

const settings = JSON.parse(process.env.PREFIXNAS_NNI_GUARD); // {host, hosts, secret, home}
delete process.env.PREFIXNAS_NNI_GUARD; // neither tuner nor trials get the guard or its settings
delete process.env.NODE_OPTIONS;
process.env.PREFIXNAS_NNI_MANAGER = String(process.pid); // the tuner ends with this process
process.argv.push(`--url-prefix=${settings.secret}`); // here, because `ps` shows the command line
os.homedir = () => settings.home; // NNI's list of experiments lives with the experiment

// 1. Where it listens.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (typeof first === 'number' && typeof rest[0] !== 'string') {
    return listen.call(this, first, settings.host, ...rest);
  }
  if (first && typeof first === 'object' && first.port !== undefined) {
    return listen.call(this, { ...first, host: settings.host }, ...rest);
  }
  return listen.call(this, first, ...rest);
};

// 2. Who may ask for what.
const base = '/' + settings.secret;
const closed = [
  /^\/netron(\/|$)/, // a proxy into the internet
  /^\/api\/v1\/nni\/tensorboard(\/|$)/, // starts a server that listens everywhere
  /^\/api\/v1\/nni\/experiment\/(import-data|cluster-metadata)$/,
];
let started = false;

function refusal(request) {
  const host = String(request.headers.host || '').replace(/:\d+$/, '');
  if (!settings.hosts.includes(host)) return [403, 'forbidden host'];
  const origin = request.headers.origin;
  if (origin !== undefined && !settings.hosts.includes(hostOf(origin))) {
    return [403, 'forbidden origin'];
  }
  const path = request.url.split('?')[0];
  if (path !== base && !path.startsWith(base + '/')) return [404, 'not found'];
  // Compared as NNI's router does: any case, escapes undone, a slash at the end.
  let inner;
  try {
    inner = decodeURIComponent(path.slice(base.length)).toLowerCase().replace(/\/+$/, '');
  } catch {
    return [404, 'not found'];
  }
  if (request.method !== 'GET' && closed.some((pattern) => pattern.test(inner))) {
    return [403, 'closed'];
  }
  if (inner.startsWith('/netron')) return [403, 'closed'];
  if (request.method === 'POST') {
    // Trials by hand would not be in the study; the configuration, with the command, comes once.
    if (inner !== '/api/v1/nni/experiment' || started) return [403, 'closed'];
    started = true;
  }
  return null;
}

function hostOf(origin) {
  try {
    return new URL(origin).hostname;
  } catch {
    return '';
  }
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response, ...rest) {
  if (event === 'request' || event === 'upgrade') {
    const refused = refusal(request);
    if (refused && event === 'upgrade') return response.destroy(); // the response is a socket
    if (refused) {
      response.statusCode = refused[0];
      response.setHeader('Connection', 'close');
      response.end(refused[1]);
      return true;
    }
    if (event === 'request') {
      response.setHeader('Referrer-Policy', 'no-referrer'); // the secret is part of the address
      response.setHeader('X-Frame-Options', 'DENY');
    }
  }
  return emit.call(this, event, request, response, ...rest);
};

// 3. to 8. How trials are started and ended.
const load = Module._extensions['.js'];
Module._extensions['.js'] = function (module, file) {
  load(module, file);
  if (file.endsWith('/training_service/v3/compat.js')) bindParameters(module);
  if (file.endsWith('/core/nnimanager.js')) numberTrials(module);
  if (file.endsWith('/core/tuner_command_channel.js')) waitForTuner(module);
  if (file.endsWith('/training_service/remote_v3/ssh.js')) guardKeepers(module);
};

function waitForTuner(module) {
  const server = module.exports.getTunerServer();

  server.init = async function () {
    for (let second = 0; second < 120 && !this.connect.settled; second += 1) await sleep(1000);
    if (!this.connect.settled) throw new Error('the tuner did not connect in two minutes');
  };
}

function guardKeepers(module) {
  const ssh = module.exports.Ssh.prototype;
  const { exec } = ssh;

  ssh.exec = async function (command) {
    if (command.endsWith('-m pip install nni --upgrade')) return { stdout: '', stderr: '', code: 0 };
    const launch = / -m nni\.tools\.nni_manager_scripts\.launch_trial_keeper (.+)$/.exec(command);
    if (!launch) return exec.call(this, command);
    const file = `${launch[1]}/keeper_guard.js`;
    await this.writeFile(file, fs.readFileSync(path.join(__dirname, 'keeper_guard.js'), 'utf8'));
    return exec.call(this, `NODE_OPTIONS='--require "${file}"' ${command}`);
  };
}

function numberTrials(module) {
  const manager = module.exports.NNIManager.prototype;
  const { addRecoveredTrialJob } = manager;

  manager.addRecoveredTrialJob = function (jobs) {
    const count = addRecoveredTrialJob.call(this, jobs);
    const used = jobs.map((job) => job.sequenceId ?? -1);
    this.experimentProfile.nextSequenceId = Math.max(-1, ...used) + 1;
    return count;
  };
}

function bindParameters(module) {
  const service = module.exports.V3asV1.prototype;
  const { uniqueString } = module.require('common/utils');
  const { start, submitTrialJob, cancelTrialJob } = service;

  service.start = function () {
    const create = this.v3.createTrial.bind(this.v3);
    this.v3.createTrial = async (environment, ...rest) => {
      for (;;) {
        try {
          const id = await create(environment, ...rest);
          if (id) return id;
        } catch (error) {
          console.error('guard: a trial cannot be started:', error);
        }
        await sleep(1000);
      }
    };
    return start.call(this);
  };

  service.submitTrialJob = async function (form) {
    await this.startDeferred.promise;
    form.id = form.id || uniqueString(5);
    // The environment of a trial that is taken up again may be gone.
    while (!this.environments.some((each) => each.id === form.envId)) {
      form.envId = this.schedule();
      if (form.envId === null) await sleep(1000);
    }
    this.allocatedParameters.set(form.id, form.hyperParameters.value);
    return submitTrialJob.call(this, form); // with both ids set, this is NNI's way to resume
  };

  service.cancelTrialJob = function (id, early) {
    if (this.trialJobs[id]) this.trialJobs[id].isEarlyStopped = Boolean(early);
    return cancelTrialJob.call(this, id, early);
  };
}
