"""Every word of the consent's pages in Korean."""

from broker.wording.consent_en import Catalogue, LeavingWords
from broker.wording.message import Message, Tone

_NOTHING = "아무것도 연결되지 않았어요."
_START_AGAIN = "이용하던 서비스로 돌아가서 다시 연결해 주세요."
_TELL = "또 그러면 이 서비스의 운영자에게 알려 주세요."
_SET_UP = Message(
    "이 서비스의 Google 설정이 올바르지 않아요",
    f"{_NOTHING} 고객님의 잘못이 아니에요.",
    "이 서비스의 운영자에게 알려 주세요. 잃어버린 것은 없으니, 운영자가 고친 뒤에 이용하던 "
    "서비스로 돌아가서 다시 연결하면 돼요.",
    can_retry=False,
)
_GOOGLE_TROUBLE = Message(
    "지금 Google에 문제가 있어요",
    f"{_NOTHING} Google이 요청을 마치지 못했어요.",
    "몇 분 뒤에 다시 시도해 주세요.",
)
_STEP_MISSING = Message(
    "Google에서 한 단계가 더 필요해요",
    f"{_NOTHING}",
    "다시 시도해서 Google 화면의 안내를 끝까지 따라 주세요.",
    Tone.CALM,
)

_KOREAN_MESSAGES = {
    "access_denied": Message(
        "연결을 허용하지 않았어요",
        f"{_NOTHING} Google 계정은 그대로예요.",
        "마음이 바뀌면 다시 시도할 수 있어요. 허용하려 했는데 Google이 막았다면 아직 사용이 "
        "승인되지 않은 계정일 수 있으니, 이 서비스의 운영자에게 문의해 주세요.",
        Tone.CALM,
    ),
    "admin_policy_enforced": Message(
        "소속 조직에서 이 연결을 허용하지 않아요",
        f"{_NOTHING} 조직의 Google Workspace 정책으로 막혀 있어요.",
        "관리자에게 이 앱을 허용해 달라고 요청하거나, 다른 Google 계정으로 다시 시도해 주세요.",
    ),
    "org_internal": Message(
        "한 조직의 계정만 연결할 수 있어요",
        f"{_NOTHING} 선택한 계정은 그 조직에 속해 있지 않아요.",
        "이 서비스를 운영하는 조직의 업무용 계정으로 다시 시도해 주세요. 이미 그렇게 했다면 "
        "운영자에게 계정을 등록해 달라고 요청해 주세요.",
    ),
    "disallowed_useragent": Message(
        "이 창에서는 Google에 로그인할 수 없어요",
        f"{_NOTHING} 다른 앱 안에서 이 페이지가 열린 것 같아요.",
        "평소에 쓰는 Chrome, Safari, Firefox, Edge 같은 브라우저로 이용하던 서비스를 열어서 "
        "다시 연결해 주세요.",
        can_retry=False,
    ),
    "login_required": _STEP_MISSING,
    "account_selection_required": _STEP_MISSING,
    "consent_required": _STEP_MISSING,
    "interaction_required": _STEP_MISSING,
    "invalid_client": _SET_UP,
    "deleted_client": _SET_UP,
    "disabled_client": _SET_UP,
    "unauthorized_client": _SET_UP,
    "redirect_uri_mismatch": _SET_UP,
    "invalid_request": _SET_UP,
    "invalid_scope": _SET_UP,
    "unsupported_response_type": _SET_UP,
    "client_refused": _SET_UP,
    "request_refused": _SET_UP,
    "server_error": _GOOGLE_TROUBLE,
    "temporarily_unavailable": _GOOGLE_TROUBLE,
    "internal_failure": _GOOGLE_TROUBLE,
    "google_unavailable": Message(
        "지금 Google에 연결할 수 없어요",
        f"{_NOTHING} Google이 제때 응답하지 않았어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
    "storage_unavailable": Message(
        "지금은 마칠 수 없어요",
        "이 서비스의 일부에 연결할 수 없어요. 계정이 연결되지 않았을 수 있어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
    "revocation_under_way": Message(
        "이전 연결의 해제를 Google에 알리는 중이에요",
        f"{_NOTHING} 지금 연결하면 곧바로 다시 해제돼요.",
        "30초쯤 뒤에 다시 시도해 주세요.",
        Tone.CALM,
    ),
    "invalid_grant": Message(
        "시간이 너무 오래 걸렸어요",
        f"{_NOTHING} Google의 응답이 만료됐거나 이미 사용됐어요.",
        "다시 시도해 주세요.",
        Tone.CALM,
    ),
    "id_token_refused": Message(
        "어떤 계정인지 확인하지 못했어요",
        f"{_NOTHING} Google의 응답이 검사를 모두 통과하지 못해서 버렸어요.",
        f"다시 시도해 주세요. {_TELL}",
    ),
    "wrong_issuer": Message(
        "Google에서 온 응답이 아니에요",
        f"{_NOTHING} 보낸 곳이 Google이 아니어서 응답을 버렸어요.",
        f"{_START_AGAIN} {_TELL}",
        can_retry=False,
    ),
    "no_code": Message(
        "Google의 응답이 완전하지 않았어요",
        f"{_NOTHING}",
        f"다시 시도해 주세요. {_TELL}",
    ),
    "no_refresh_token": Message(
        "Google이 지속적인 연결을 허용하지 않았어요",
        f"{_NOTHING} Google의 지속적인 허용이 없으면 한 시간 안에 연결이 끊겨요.",
        "Google 계정의 “서드 파티 앱 및 서비스”에서 이 앱을 삭제한 뒤 다시 시도해 주세요. "
        "그래도 안 되면 이 서비스의 운영자에게 알려 주세요.",
    ),
    "unknown_error": Message(
        "Google이 계정 연결을 마치지 못했어요",
        f"{_NOTHING}",
        f"다시 시도해 주세요. {_TELL}",
    ),
    "link_not_ours": Message(
        "이 링크는 쓸 수 없어요",
        "링크가 잘렸거나, 도중에 바뀌었거나, 다른 사람을 위해 만들어졌어요.",
        "복사한 링크라면 전체를 복사했는지 확인해 주세요. 아니라면 이용하던 서비스로 "
        "돌아가서 새 링크를 받아 주세요.",
    ),
    "link_expired": Message(
        "링크가 만료됐어요",
        "안전을 위해 이런 링크는 몇 분 동안만 쓸 수 있어요.",
        _START_AGAIN,
        Tone.CALM,
    ),
    "link_used": Message(
        "이미 사용한 링크예요",
        "링크는 한 번만 쓸 수 있고, 이 링크는 할 일을 마쳤어요.",
        "이 페이지는 닫아도 돼요. 다른 계정을 연결하거나 허용한 권한을 바꾸려면 이용하던 "
        "서비스로 돌아가 주세요.",
        Tone.CALM,
    ),
    "link_elsewhere": Message(
        "다른 브라우저에서 이미 연 링크예요",
        "안전을 위해 링크를 처음 연 브라우저에서만 계속할 수 있어요.",
        "그 브라우저에서 계속하거나, 이용하던 서비스로 돌아가서 이 브라우저로 다시 연결해 주세요.",
    ),
    "link_withdrawn": Message(
        "이 링크는 더 이상 쓸 수 없어요",
        f"링크를 만든 서비스가 이제는 이 링크를 쓸 수 없어요. {_NOTHING}",
        _START_AGAIN,
        can_retry=False,
    ),
    "not_from_our_page": Message(
        "계속하신 분이 본인인지 확인할 수 없어요",
        f"{_NOTHING} 이전 페이지를 너무 오래 열어 두었거나 다른 브라우저에서 열었거나, 브라우저가 "
        "쿠키를 저장하지 않는 것일 수 있어요.",
        f"이 사이트의 쿠키를 허용해 주세요. {_START_AGAIN}",
    ),
    "account_mismatch": Message(
        "다른 Google 계정이에요",
        f"{_NOTHING} 이 연결은 정해진 한 계정만 쓸 수 있는데, 다른 계정을 고르셨어요.",
        "다시 시도해서 요청된 계정을 골라 주세요.",
        Tone.CALM,
    ),
    "address_not_verified": Message(
        "Google이 이 계정의 이메일 주소를 확인하지 않았어요",
        f"{_NOTHING} 이 연결은 정해진 이메일 주소만 쓸 수 있는데, 그 주소가 고르신 계정의 것인지 "
        "확실하지 않아요.",
        "Google 계정에서 주소를 인증한 뒤 다시 시도하거나, 그 주소를 쓰는 다른 계정을 골라 주세요.",
        Tone.CALM,
    ),
    "answer_unknown": Message(
        "어느 연결에 대한 응답인지 알 수 없어요",
        "바뀐 것은 없어요. 방금 계정을 연결한 뒤 이 페이지를 새로 고쳤거나 뒤로 왔다면, 계정은 잘 "
        "연결돼 있어요.",
        "아니라면 다른 브라우저나 탭에서 계속했거나, 너무 오래 기다렸거나, 브라우저가 쿠키를 "
        "저장하지 않을 수 있어요. 이용하던 서비스로 돌아가서 다시 연결해 주세요.",
        Tone.CALM,
    ),
    "malformed": Message(
        "요청을 읽을 수 없어요",
        "주소나 보낸 내용의 일부가 너무 길거나, 빠졌거나, 두\N{NO-BREAK SPACE}번 들어 있어요.",
        _START_AGAIN,
    ),
    "404": Message(
        "여기에는 아무것도 없어요",
        "이 주소로 열 수 있는 페이지가 없어요.",
        "링크를 눌러서 왔다면 이용하던 서비스로 돌아가서 새 링크를 받아 주세요.",
        Tone.CALM,
    ),
    "405": Message(
        "이 페이지는 열어 볼 수만 있어요",
        "여기로는 아무것도 보낼 수 없어요.",
        _START_AGAIN,
        Tone.CALM,
    ),
    "429": Message(
        "잠시만 기다려 주세요",
        "사용하시는 네트워크에서 요청이 한꺼번에 너무 많이 들어왔어요. 바뀐 것은 없어요.",
        "1분쯤 뒤에 이 페이지를 다시 열어 주세요.",
        Tone.CALM,
    ),
    "500": Message(
        "저희 쪽에서 문제가 생겼어요",
        "고객님의 잘못이 아니에요. 문제는 기록해 두었어요.",
        f"잠시 뒤에 다시 시도해 주세요. {_TELL}",
    ),
    "503": Message(
        "지금은 처리할 수 없어요",
        "잠시 이 서비스의 일부에 연결할 수 없어요. 바뀐 것은 없어요.",
        "몇 분 뒤에 다시 시도해 주세요.",
    ),
}

KOREAN = Catalogue(
    language="ko",
    site="Google 연결",
    try_again="다시 시도",
    reference="문의 번호",
    connected_title="Google 계정이 연결됐어요",
    connected_partly_title="일부 권한만으로 Google 계정이 연결됐어요",
    connected_lead="이 페이지는 닫아도 돼요.",
    account="계정",
    granted="이제 이 서비스가 할 수 있는 일",
    not_granted="허용하지 않은 일",
    not_granted_advice=(
        "이 권한이 필요한 기능은 쓸 수 없어요. 허용하려면 이용하던 서비스로 돌아가서 다시 "
        "연결해 주세요."
    ),
    withdraw="연결은 언제든지 Google 계정의 다음 메뉴에서 해제할 수 있어요:",
    withdraw_link="서드 파티 앱 및 서비스",
    leaving=LeavingWords(
        title="{service} 서비스에서 Google 계정을 쓰려고 해요",
        lead="다음 화면에서 Google이 물어봐요. 거기서 허용하기 전에는 아무것도 연결되지 않아요.",
        again="이 페이지가 두 탭에서 열려 있었어요. 아래 버튼을 한 번 더 눌러 주세요. 아직 "
        "연결된 계정은 없어요.",
        asked="허용하면 할 수 있는 일",
        kept="전에 허용한 것은 그대로예요",
        account="대상 계정",
        account_advice="다른 계정은 연결되지 않아요.",
        go_on="Google로 계속",
        next_step="Google 계정에서 언제든지 취소할 수 있어요.",
        warning="방금 {service} 서비스에서 직접 오셨을 때만 계속하세요. 누군가 이 링크를 보내 "
        "주었다면 이 페이지를 닫아 주세요.",
        returns_to="마치면 {host} 사이트로 돌아가요.",
    ),
    messages=_KOREAN_MESSAGES,
)
