-- A public URL: a server in a box, reached from outside with a token.
--
--     build/lbox --local examples/public_url.lua
local lbox = require "lbox"

lbox.with_box({ runtime = "python" }, function(box)
  box.files:write { path = "site/index.html", content = "<h1>Hello from a box</h1>\n" }
  box.exec:command "python3 -m http.server 8000 --directory site >/dev/null 2>&1 &"

  local public = box:get_public_url(8000, { bearer_token = true })
  print("open for who has the token: " .. public.url)
  -- curl -H "Authorization: Bearer $TOKEN" $URL

  for _, open in ipairs(box:list_public_urls()) do
    print(open.port, open.url)
  end
  box:delete_public_url(8000)
end)
