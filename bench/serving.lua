-- For wrk: requests made before the run, about users 0 … users - 1, each asked for in turn.
-- Arguments: kind (a path to which the user is added, or ours, decisions, feast), users, users per request, rate per
-- connection in requests/s (0: as fast as it can), when the users' orders were (ms), then the names of Feast's features.
local requests, at = {}, 0

local function quoted(first, count, users)
  local ids = {}
  for i = 1, count do ids[i] = string.format('"user-%06d"', (first + i) % users) end
  return table.concat(ids, ",")
end

local function order(user, at)
  return string.format('{"order_id":"next","user_id":"user-%06d","session_id":"s","order_status":"CREATED","items":' ..
    '[{"product_id":"p-1","product_name":"Glass","category":"kitchen","quantity":2,"unit_price_minor":5000,' ..
    '"total_price_minor":10000}],"subtotal_minor":10000,"discount_minor":0,"shipping_minor":0,"total_amount_minor":' ..
    '10000,"currency":"TRY","payment_method":"card","shipping_region":"Istanbul","event_time":%.0f,' ..
    '"is_first_order":false}', user, at + 60000)
end

function init(args)
  local kind, users, batch, rate = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  if rate > 0 then  -- defined only then: wrk sets a timer for every request once there is one
    function delay() return math.floor(math.random() * 2000 / rate) end
  end
  local features = {}
  for i = 6, #args do features[#features + 1] = string.format('"user_features:%s"', args[i]) end
  local json = {["Content-Type"] = "application/json"}
  for i = 1, 500 do
    local first = i * 7 * batch
    if kind == "ours" then
      requests[i] = wrk.format("POST", "/api/v1/features", json, '{"user_ids":[' .. quoted(first, batch, users) .. "]}")
    elseif kind == "decisions" then
      requests[i] = wrk.format("POST", "/api/v1/decisions", json, order(first % users, tonumber(args[5])))
    elseif kind == "feast" then
      requests[i] = wrk.format("POST", "/get-online-features", json, string.format(
        '{"features":[%s],"entities":{"user_id":[%s]}}', table.concat(features, ","), quoted(first, batch, users)))
    else
      requests[i] = wrk.format("GET", kind .. string.format("user-%06d", first % users))
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
