-- Sends a different session's cookie with each request, and prints one line of JSON.
-- Arguments: a file with a cookie on each line; none, where requests have no cookie.

local requests, next = {}, 0

function init(args)
  if args[1] then
    for cookie in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", nil, { Cookie = cookie })
    end
  else
    requests[1] = wrk.format("GET")
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"Requests":%d,"Seconds":%f,"P50":%f,"P99":%f,"Errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
