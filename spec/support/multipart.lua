-- The parts of a multipart/form-data body as a fault server logged it: a list of { name, filename, type,
-- text }.
return function(request)
  local boundary = request.headers["content-type"]:match("^multipart/form%-data; boundary=([%w-]+)$")
  assert(boundary, request.headers["content-type"])
  local parts, rest = {}, "\r\n" .. request.body
  local mark = "\r\n--" .. boundary
  while true do
    assert(rest:sub(1, #mark) == mark)
    rest = rest:sub(#mark + 1)
    if rest == "--\r\n" then
      return parts
    end
    local head, after = rest:match("^\r\n(.-)\r\n\r\n(.*)$")
    local stop = after:find(mark, 1, true)
    local disposition = head:match("^Content%-Disposition: form%-data; ([^\r]*)")
    parts[#parts + 1] = {
      name = disposition:match('^name="(.-)"'),
      filename = disposition:match('; filename="(.-)"$'),
      type = head:match("\r\nContent%-Type: ([^\r]*)"),
      text = after:sub(1, stop - 1),
    }
    rest = after:sub(stop)
  end
end
