"""What PyPI's postgrest finds, over the fixtures of tests/tests/rest/. URL and token come by environment."""

import os

from postgrest import CountMethod, SyncPostgrestClient
from postgrest.exceptions import APIError

URL = os.environ["PG_SHELL_REST_URL"]
client = SyncPostgrestClient(URL, headers={"Authorization": "Bearer " + os.environ["PG_SHELL_TOKEN"]})


def rows(**options):
    return client.rpc("rest_rows", {"n": 5}, **options)


def code(request) -> str:
    try:
        request.execute()
    except APIError as error:
        return error.code
    raise AssertionError("it was accepted")


assert client.rpc("rest_add", {"a": 1, "b": 5}).execute().data == 6
assert client.rpc("rest_add", {"a": 1}, get=True).execute().data == 3
assert client.rpc("rest_array", {"v": [3, 4]}).execute().data == 4
assert client.rpc("rest_pair", {}).execute().data == {"id": 7, "name": "seven"}
assert rows().select("id").gt("id", 3).order("id", desc=True).execute().data == [{"id": 5}, {"id": 4}]
assert rows().select("id").in_("id", [1, 3]).execute().data == [{"id": 1}, {"id": 3}]
assert rows().select("id").eq("id", 2).single().execute().data == {"id": 2}
counted = rows(count=CountMethod.exact, get=True).select("id").limit(2).execute()
assert (counted.count, counted.data) == (5, [{"id": 1}, {"id": 2}]), counted
assert code(client.rpc("rest_nope", {})) == "PGRST202"
assert code(rows().select("id").single()) == "PGRST116"
assert code(client.rpc("rest_write", {"note": "py"}, get=True)) == "25006"
assert code(client.rpc("rest_raise", {"code": "P0001"})) == "P0001"
print("ok")
