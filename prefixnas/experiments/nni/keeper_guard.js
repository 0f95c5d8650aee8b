// Loaded into NNI 3.0's keeper on another machine before its own code: guard.js sends it there. The
// keeper's server is for the trials beside it, so that it listens on loopback, under that name alone.
'use strict';

const http = require('http');
const net = require('net');

delete process.env.NODE_OPTIONS; // trials do not get the guard

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === 'number'
    ? listen.call(this, port, '127.0.0.1')
    : listen.call(this, port, ...rest);
};

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response, ...rest) {
  if (event === 'request' || event === 'upgrade') {
    const host = String(request.headers.host || '').replace(/:\d+$/, '');
    if (!['localhost', '127.0.0.1'].includes(host) || request.headers.origin !== undefined) {
      if (event === 'upgrade') return response.destroy(); // the response is a socket
      response.statusCode = 403;
      response.end('forbidden');
      return true;
    }
  }
  return emit.call(this, event, request, response, ...rest);
};
